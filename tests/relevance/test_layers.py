"""Each rule of linear layers and convolutions against its definition, contribution by contribution, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hookmap.relevance import ZERO, Epsilon, Flat, Gamma, Relevance, Zero, ZPlus, relevance
from networks import noise

LAYERS: dict[str, Callable[[bool], nn.Module]] = {
    "linear": lambda bias: nn.Linear(12, 7, bias),
    "convolution": lambda bias: nn.Conv2d(3, 4, 3, 2, 1, bias=bias),
    "depthwise": lambda bias: nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=bias),
    "dilated": lambda bias: nn.Conv2d(3, 4, 3, padding=2, dilation=2, bias=bias),
    "transposed": lambda bias: nn.ConvTranspose2d(3, 4, 3, 2, 1, bias=bias),
    "series": lambda bias: nn.Conv1d(3, 4, 3, bias=bias),
    "volume": lambda bias: nn.Conv3d(3, 4, 2, bias=bias),
}
SIZES = {"linear": (12,), "series": (3, 9), "volume": (3, 3, 4, 5)}


def dense(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A layer as a matrix ``(outputs, inputs)``, its bias and its output, flat."""
    with torch.no_grad():
        bias = layer(torch.zeros_like(x)).flatten()
    matrix = torch.autograd.functional.jacobian(layer, x).reshape(len(bias), x.numel())
    return matrix, bias, matrix @ x.flatten() + bias


def by_definition(rule: object, x: Tensor, matrix: Tensor, bias: Tensor, y: Tensor, relevances: Tensor) -> Tensor:
    """Relevance of the inputs, then that of all biases, ``(inputs + 1,)``."""
    parts = torch.cat([matrix * x.flatten(), bias[:, None]], 1)
    if isinstance(rule, Gamma):
        parts = parts * (1 + rule.gamma * (parts * y[:, None] > 0))
    elif isinstance(rule, ZPlus):
        parts = parts.clamp(min=0)
    elif isinstance(rule, Flat):
        parts = torch.cat([(matrix != 0).double(), torch.zeros_like(bias)[:, None]], 1)
    total = parts.sum(1)
    if isinstance(rule, Epsilon):
        total = torch.where(total < 0, total - rule.epsilon, total + rule.epsilon)
    return (parts / total[:, None] * relevances[:, None]).nan_to_num(0).sum(0)


def taken(layer: nn.Module, x: Tensor, weights: Tensor, **rules: object) -> Relevance:
    return relevance(layer, x, lambda y: (y.flatten(1) * weights).sum(1), replace(ZERO, **rules))


@pytest.mark.parametrize("rule", [Zero(), Epsilon(0.1), Gamma(0.25), Gamma(3.0), ZPlus(), Flat()], ids=repr)
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_rule_is_its_definition(name: str, bias: bool, positive: bool, rule: object) -> None:
    layer = LAYERS[name](bias).double().eval()
    x = noise(1, *SIZES.get(name, (3, 7, 6))).double()
    x = x.clamp(min=0) if positive else x
    matrix, b, y = dense(layer, x)
    weights = noise(len(y), seed=5).double()
    if isinstance(rule, ZPlus):  # what has no positive contributions has nothing to share out behind a ReLU
        weights = weights * (y > 0)
    kinds = {"first": rule} if isinstance(rule, Flat) else {"linear": rule, "convolution": rule}
    found = taken(layer, x, weights, **kinds)
    expected = by_definition(rule, x, matrix, b, y, y * weights)
    assert (found.input.flatten() - expected[:-1]).abs().max() <= 1e-12
    account = found.accounts[0]
    assert account.input == pytest.approx(float(expected[:-1].sum()), abs=1e-12)
    if not isinstance(rule, Flat):
        assert sum(account.parameters.values()) == pytest.approx(float(expected[-1]), abs=1e-12)
    assert account.error <= 1e-12


@pytest.mark.parametrize("rule", [Epsilon(0.1), Gamma(0.25), ZPlus(), Flat()], ids=repr)
def test_a_batch_norm_is_merged_into_the_layer_before_it(rule: object) -> None:
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(3, 4, 3, padding=1).double(), nn.BatchNorm2d(4).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    both = nn.Sequential(layer, norm).eval()
    x = noise(1, 3, 6, 5).double()
    matrix, b, y = dense(both, x)
    weights = noise(len(y), seed=5).double() * (y > 0)
    kinds = {"first": rule} if isinstance(rule, Flat) else {"convolution": rule}
    expected = by_definition(rule, x, matrix, b, y, y * weights)
    alone = taken(both, x, weights, **kinds)
    assert (alone.input.flatten() - expected[:-1]).abs().max() <= 1e-12
    assert alone.accounts[0].error <= 1e-12
    # Looking at the layer between them changes nothing, and its relevance is that of what follows.
    seen = relevance(both, x, lambda y: (y.flatten(1) * weights).sum(1), replace(ZERO, **kinds), ["0", "1"])
    assert torch.equal(seen.input, alone.input)
    for name in ("0", "1"):
        assert (seen.layers[name].flatten() - y * weights).abs().max() <= 1e-12


@pytest.mark.parametrize("rule", [Gamma(0.25), ZPlus()], ids=repr)
def test_scores_and_images_are_apart(rule: object) -> None:
    layer = LAYERS["convolution"](True).double().eval()
    x, composite = noise(3, 3, 7, 6).double(), replace(ZERO, convolution=rule)
    together = relevance(layer, x, lambda y: y.flatten(1)[:, :2].T, composite)
    for t in range(2):
        for b in range(3):
            alone = relevance(layer, x[b : b + 1], lambda y, t=t: y.flatten(1)[:, t], composite)
            assert (together.input[t, b] - alone.input[0, 0]).abs().max() <= 1e-13
