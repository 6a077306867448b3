"""Rules of nodes that bend, each against a second derivation in float64; names that change are met by kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import hookmap as hm
from hookmap.relevance import ATTNLRP, ZERO, Composite, Relevance, relevance
from networks import noise


class Function(nn.Module):
    """A function of tensors as a model."""

    def __init__(self, function: Callable[..., Tensor], *parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        self.own = nn.ParameterList([nn.Parameter(p) for p in parameters])

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.own)


def of(function: Callable[..., Tensor], x: Tensor, *parameters: Tensor, composite: Composite = ZERO) -> Relevance:
    """For the sum over ``function(x)`` times fixed weights."""
    weights = noise(*function(x, *parameters).shape[1:], seed=8).double()
    model = Function(function, *parameters).double()
    return relevance(model, x, lambda y: (y * weights).flatten(1).sum(1), composite)


ACTIVATIONS = {
    "relu": F.relu,
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "leaky in place": lambda x: F.leaky_relu(x.clone(), 0.2, inplace=True),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "silu in place": lambda x: F.silu(x.clone(), inplace=True),
    "silu by hand": lambda x: x * x.sigmoid(),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "hardswish": F.hardswish,
    "relu6": F.relu6,
    "relu6 in place": lambda x: F.relu6(x.clone(), inplace=True),
    "clamped": lambda x: x.clamp(-0.3, 0.7),
    "clamped below": lambda x: x.clamp(min=-0.3),
    "elu": lambda x: F.elu(x, 0.7),
    "elu in place": lambda x: F.elu(x.clone(), 0.7, inplace=True),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "celu in place": lambda x: F.celu(x.clone(), 0.7, inplace=True),
    "mish": F.mish,
    "tanh": torch.tanh,
    "softsign": lambda x: x / (1 + x.abs().detach()),
    "squared": lambda x: x**2,
    "squared relu": lambda x: F.relu(x).square(),
    "abs": torch.abs,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_hands_on_all_that_it_has(name: str) -> None:
    x = 2 * noise(2, 3, 4, 5).double()
    x[0, 0, 0, :2] = torch.tensor([0.0, 7.0])  # where f(x) / x is a limit, and where it is saturated
    found = of(ACTIVATIONS[name], x)
    weights = noise(3, 4, 5, seed=8).double()
    assert (found.input[0] - ACTIVATIONS[name](x) * weights).abs().max() <= 1e-12
    assert found.accounts[0].error <= 1e-12


def test_a_gated_unit_holds_its_gate() -> None:
    x = noise(2, 6, 4).double()
    found = of(lambda x: F.glu(x, 1), x)
    weights = noise(3, 4, seed=8).double()
    assert (found.input[0, :, :3] - F.glu(x, 1) * weights).abs().max() <= 1e-12
    assert not found.input[0, :, 3:].any()


def squeeze(x: Tensor, w: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3)) @ w)[:, :, None, None]


def response(x: Tensor, w: Tensor) -> Tensor:
    """ConvNeXt v2's global response normalisation."""
    size = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x + w * (x * (size / (size.mean(1, keepdim=True) + 1e-6)))


@pytest.mark.parametrize("gated", [squeeze, response])
def test_gates_and_responses_are_held(gated: Callable[..., Tensor]) -> None:
    x = noise(2, 3, 4, 5).double()
    w = noise(3, 3, seed=2).double() if gated is squeeze else noise(1, 3, 1, 1, seed=2).double()
    found = of(gated, x, w)
    assert (found.input[0] - gated(x, w) * noise(3, 4, 5, seed=8).double()).abs().max() <= 1e-12
    assert not any(found.accounts[0].parameters.values())


def test_of_two_factors_that_come_from_the_input_each_takes_half() -> None:
    x = noise(2, 6, 4).double()
    found = of(lambda x: x[:, :3] * x[:, 3:], x)
    half = x[:, :3] * x[:, 3:] * noise(3, 4, seed=8).double() / 2
    assert (found.input[0] - torch.cat([half, half], 1)).abs().max() <= 1e-12


def held_norm(x: Tensor, axes: tuple[int, ...], weight: Tensor, bias: Tensor) -> Tensor:
    """A norm whose deviation is a number, not a function of x."""
    deviation = (x.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt().detach()
    return (x - x.mean(axes, keepdim=True)) / deviation * weight + bias


def by_hand(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) * (x.var(-1, unbiased=False, keepdim=True) + 1e-5).rsqrt() * w + b


def var_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * w + b


@pytest.mark.parametrize(
    ("norm", "axes", "size"),
    [
        (lambda x, w, b: F.layer_norm(x, (5,), w, b), (3,), (5,)),
        (lambda x, w, b: F.layer_norm(x, (3, 4, 5), w, b), (1, 2, 3), (3, 4, 5)),
        (lambda x, w, b: F.group_norm(x, 1, w.flatten(), b.flatten()), (1, 2, 3), (3, 1, 1)),
        (lambda x, w, b: F.instance_norm(x, None, None, w.flatten(), b.flatten()), (2, 3), (3, 1, 1)),
        (by_hand, (3,), (5,)),
        (var_mean, (3,), (5,)),
    ],
    ids=["layer", "layers", "group", "instance", "by hand", "var_mean"],
)
def test_a_norm_is_linear_with_a_deviation_that_is_held(
    norm: Callable[..., Tensor], axes: tuple[int, ...], size: tuple[int, ...]
) -> None:
    x = 3 + 2 * noise(2, 3, 4, 5).double()
    w, b = noise(*size, seed=4).double(), noise(*size, seed=5).double()
    found = of(norm, x, w, b)
    leaf = x.clone().requires_grad_()
    (held_norm(leaf, axes, w, b) * noise(3, 4, 5, seed=8).double()).sum().backward()
    assert (found.input[0] - x * leaf.grad).abs().max() <= 1e-11
    account = found.accounts[0]
    assert account.error <= 1e-12
    shift = b * noise(3, 4, 5, seed=8).double()
    assert sum(account.parameters.values()) == pytest.approx(2 * float(shift.sum()), rel=1e-10)


@pytest.mark.parametrize(
    "norm",
    [
        lambda x, w: F.rms_norm(x, (5,), w, 1e-6),
        lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * w,
        lambda x, w: x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w,
        lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6) ** -0.5 * w,
        lambda x, w: F.normalize(x, dim=-1) * w,
        lambda x, w: x / x.norm(dim=-1, keepdim=True) * w,
    ],
    ids=["rms_norm", "by rsqrt", "by sqrt", "by power", "normalize", "norm"],
)
def test_a_norm_without_a_mean_hands_on_all_that_it_has(norm: Callable[..., Tensor]) -> None:
    x, w = noise(2, 3, 5).double(), noise(5, seed=4).double()
    found = of(norm, x, w)
    assert (found.input[0] - norm(x, w) * noise(3, 5, seed=8).double()).abs().max() <= 1e-12
    assert found.accounts[0].error <= 1e-12


def test_a_batch_norm_of_its_own_batch_holds_its_deviation() -> None:
    x, w, b = noise(2, 3, 4, 5).double(), noise(3, seed=4).double(), noise(3, seed=5).double()
    found = of(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), x, w, b)
    leaf = x.clone().requires_grad_()
    held = held_norm(leaf, (0, 2, 3), w[:, None, None], b[:, None, None])
    (held * noise(3, 4, 5, seed=8).double()).sum().backward()
    assert (found.input[0] - x * leaf.grad).abs().max() <= 1e-11


def test_the_shift_of_a_batch_norm_is_told_apart() -> None:
    norm = nn.BatchNorm2d(3).double().eval()
    norm.running_mean.copy_(noise(3, seed=1))
    nn.init.normal_(norm.bias)
    x = noise(2, 3, 4, 5).double()
    account = relevance(norm, x, lambda y: y.flatten(1).sum(1)).accounts[0]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    assert account.shifts == pytest.approx(float(-(norm.running_mean * scale).sum().detach() * 40), rel=1e-10)
    assert account.parameters == {"bias": pytest.approx(float(norm.bias.detach().sum() * 40), rel=1e-10)}
    assert account.error <= 1e-12


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("last", [False, True])
def test_how_tensors_lie_in_memory_does_not_matter_to_a_batch_norm(last: bool, turned: bool) -> None:
    norm = nn.BatchNorm2d(3).double().eval()
    norm.running_mean.copy_(noise(3, seed=1))
    nn.init.normal_(norm.weight)
    x, weights = noise(2, 3, 4, 5).double(), noise(4, 5, 3, seed=8).double()
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    weights = weights if turned else weights.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    found = relevance(norm, x, lambda y: (y.permute(0, 2, 3, 1) * weights).flatten(1).sum(1))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    expected = x * scale[:, None, None] * weights.permute(2, 0, 1)
    assert (found.input[0] - expected).abs().max() <= 1e-12
    assert found.accounts[0].error <= 1e-12


# ------------------------------------------------------------------ attention


def fused(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x @ wq, x @ wk, x @ wv)


def eager(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor) -> Tensor:
    q, k, v = x @ wq, x @ wk, x @ wv
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v


def masked(x: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, bias: Tensor) -> Tensor:
    """Under a mask that needs a gradient, fused attention is a softmax between two products."""
    return F.scaled_dot_product_attention(x @ wq, x @ wk, x @ wv, bias)


def tokens() -> tuple[Tensor, list[Tensor]]:
    return noise(2, 3, 7, 4).double(), [noise(4, 4, seed=i).double() for i in range(3)]


@pytest.mark.parametrize("attention", [fused, eager, masked])
def test_relevance_passes_through_values_only(attention: Callable[..., Tensor]) -> None:
    x, weights = tokens()
    extra = [noise(7, 7, seed=6).double()] if attention is masked else []
    found = of(attention, x, *weights, *extra)
    leaf = x.clone().requires_grad_()
    logits = (x @ weights[0]) @ (x @ weights[1]).transpose(-2, -1) / 2 + (extra[0] if extra else 0)
    (logits.softmax(-1) @ (leaf @ weights[2]) * noise(3, 7, 4, seed=8).double()).sum().backward()
    assert (found.input[0] - x * leaf.grad).abs().max() <= 1e-12
    assert found.accounts[0].error <= 1e-12


@pytest.mark.parametrize("attention", [fused, eager])
def test_attnlrp_gives_queries_and_keys_a_quarter_and_values_half(attention: Callable[..., Tensor]) -> None:
    x, weights = tokens()
    composite = replace(ATTNLRP, linear=ZERO.linear, first=None)
    found = of(attention, x, *weights, composite=composite)
    parts = [x.clone().requires_grad_() for _ in range(3)]
    q, k, v = (part @ w for part, w in zip(parts, weights, strict=True))
    ((q @ k.transpose(-2, -1) / 2).softmax(-1) @ v * noise(3, 7, 4, seed=8).double()).sum().backward()
    expected = x * (parts[0].grad / 4 + parts[1].grad / 4 + parts[2].grad / 2)
    assert (found.input[0] - expected).abs().max() <= 1e-12
    assert found.accounts[0].error <= 1e-12


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_every_kernel_of_attention_gives_the_same(backend: SDPBackend) -> None:
    x, weights = tokens()
    with sdpa_kernel(backend):
        found = of(fused, x, *weights)
    assert (found.input - of(eager, x, *weights).input).abs().max() <= 1e-12


# ------------------------------------------------------------------ what has no rule


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 2


def test_a_function_of_somebody_else_is_refused_by_name_and_may_be_given_a_rule() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Doubled.apply(x)

    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), Inner()).double(), noise(1, 3, 4, 4).double()
    with pytest.raises(hm.ModelError, match=r"no rule for Doubled behind '0'; .*rules=\{'Doubled'"):
        relevance(model, x, lambda y: y.flatten(1).sum(1))
    ruled = replace(ZERO, rules={"Doubled": lambda node, gradients: (gradients[0] * 2,)})
    assert relevance(model, x, lambda y: y.flatten(1).sum(1), ruled).accounts[0].error <= 1e-12


def test_an_operation_without_a_rule_is_refused_by_name() -> None:
    with pytest.raises(hm.ModelError, match="no rule for Erfinv"):
        of(lambda x: torch.erfinv(x.tanh()), noise(1, 3, 4).double())


def test_a_constant_that_the_graph_does_not_know_is_missed_and_named() -> None:
    found = of(lambda x: x + torch.ones(4, dtype=x.dtype), noise(1, 3, 4).double())
    assert found.accounts[0].suspects == ["Add, which adds a constant"]
    assert found.accounts[0].caution.startswith("incomplete: ")


def test_a_gate_that_stands_in_the_way_is_named() -> None:
    found = of(torch.sigmoid, noise(1, 3, 4).double())
    assert found.accounts[0].caution.endswith("; look at Sigmoid")
