"""Dependence on weights, class and noise; and the user's model stays as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from hookmap.metrics.sanity import randomised
from networks import noise
from tiny import images, tiny


def gradient(model: nn.Module, image: Tensor) -> Tensor:
    x = image[None].detach().requires_grad_()
    return torch.autograd.grad(model(x)[:, 2].sum(), x)[0][0].sum(0)


def edges(model: nn.Module, image: Tensor) -> Tensor:
    """Looks like an explanation, and never asks the model."""
    return image.diff(dim=2)[0].abs()


def test_layers_become_random_one_after_the_other_from_the_last() -> None:
    net = tiny()
    before = copy.deepcopy(net.state_dict())
    random_state = torch.random.get_rng_state()
    changed: list[set[str]] = []
    for random in randomised(net):
        now = random.state_dict()
        changed.append({name.split(".")[0] for name in before if not now[name].equal(before[name])})
    assert changed == [
        {"head"},
        {"head", "norm2"},
        {"head", "norm2", "conv2"},
        {"head", "norm2", "conv2", "norm1"},
        {"head", "norm2", "conv2", "norm1", "conv1"},
    ]
    assert all(net.state_dict()[name].equal(before[name]) for name in before)
    assert torch.random.get_rng_state().equal(random_state)


def test_the_same_seed_gives_the_same_random_model() -> None:
    net = tiny()
    one, same, other = ([*randomised(net, seed)][-1].state_dict() for seed in (0, 0, 1))
    assert all(one[name].equal(same[name]) for name in one)
    assert not one["conv1.weight"].equal(other["conv1.weight"])


def test_weights_outside_of_layers_are_shuffled() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.arange(9.0))

    (random,) = randomised(Scaled())
    assert random.scale.tolist() != [*range(9)]
    assert sorted(random.scale.tolist()) == [*range(9)]


def test_what_cannot_be_randomised_gets_a_sentence() -> None:
    with pytest.raises(hm.HookmapError, match="no weights"):
        next(randomised(nn.ReLU()))
    net = tiny()
    net.lock = (_ for _ in ())  # generators can't be copied
    with pytest.raises(hm.HookmapError, match="can't be copied"):
        next(randomised(net))


def test_edges_stay_alike_whatever_the_weights_and_gradients_do_not() -> None:
    net, image = tiny(), images()[0]
    before = copy.deepcopy(net.state_dict())
    blind = hm.metrics.smprt(edges, net, image, samples=4)
    seeing = hm.metrics.smprt(gradient, net, image, samples=4)
    assert blind.item() == pytest.approx(1)
    assert seeing < 0.8
    assert hm.metrics.smprt(gradient, net, image, samples=4) == seeing
    assert hm.metrics.emprt(edges, net, image).item() == 0
    assert all(net.state_dict()[name].equal(before[name]) for name in before)
    assert all(weights.grad is None for weights in net.parameters())


def test_emprt_is_the_relative_rise_of_the_entropy() -> None:
    net = tiny()
    before, after = torch.tensor([0.0, 0, 0, 9]), torch.tensor([0.0, 3, 6, 9])
    rise = hm.metrics.emprt(lambda model, image: (before if model is net else after)[None], net, images()[0])
    low = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert rise.item() == pytest.approx(((torch.tensor(4.0).log() - low) / low).item())
    assert hm.metrics.emprt(lambda model, image: torch.ones(2, 2), net, images()[0]).isnan()


def test_stability_falls_with_the_noise() -> None:
    image = noise(1, 8, 8)
    values = [hm.metrics.stability(lambda x: x[:, 0] ** 2, image, noise=level).item() for level in (0, 0.01, 0.5)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > 0.9 > values[2]


def test_class_sensitivity_is_nought_of_the_same_and_two_of_the_reversed_order() -> None:
    maps = noise(3, 4, 4)
    others = torch.stack([maps[0].exp(), -maps[1], noise(4, 4, seed=9)])
    assert hm.metrics.class_sensitivity(maps, others)[:2].tolist() == pytest.approx([0, 2])
    assert 0.3 < hm.metrics.class_sensitivity(maps, others)[2] < 1.7
    with pytest.raises(hm.HookmapError, match="expected the same methods"):
        hm.metrics.class_sensitivity(maps, others[:1])


def test_samples_that_cannot_be_get_a_sentence() -> None:
    for metric in (hm.metrics.stability, hm.metrics.max_sensitivity):
        with pytest.raises(hm.HookmapError, match="samples is 0"):
            metric(lambda x: x[:, 0], noise(1, 4, 4), samples=0)
        with pytest.raises(hm.HookmapError, match="expected a map each"):
            metric(lambda x: x[0, 0], noise(1, 4, 4))
