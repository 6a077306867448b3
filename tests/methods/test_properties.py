"""What must hold of every method, whatever the numbers are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import hookmap as hm
from hookmap.methods import METHODS
from tiny import attentive, close, explained, images, tiny

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
always = settings(max_examples=40, deadline=None, derandomize=True)

DERIVATIVES = {"gradient": 1, "curvature": 1, "head": 1, "moments": 1}
PURE = {
    name: method.function
    for name, method in METHODS.items()
    if method.needs and method.needs <= {"activation", *DERIVATIVES} and method.score is None
}
WHOLE = [name for name, method in METHODS.items() if not method.objects]
"""Methods that are defined for classes of whole images."""

GRADIENT = [name for name in PURE if METHODS[name].family == "gradient"]
LINEAR = ["gradcam", "cam", "xgradcam", "hirescam", "odam", "shapleycam"]
HOMOGENEOUS = [*LINEAR, "layercam", "elementwise", "eigengradcam", "segeigencam"]


@st.composite
def ingredients(draw: st.DrawFn, values: str = "any") -> dict[str, Tensor]:
    """Everything that a pure method may ask for, of random sizes; with seeded numbers or, if "any", degenerate ones."""
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    grid = draw(st.sampled_from([(3,), (2, 3), (5, 4), (2, 2, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    kinds = ["random", "zero", "constant", "one place", "tiny", "large"] if values == "any" else ["random"]

    def numbers(*size: int) -> Tensor:
        full = torch.randn(size, generator=generator, dtype=torch.float64)
        kind = draw(st.sampled_from(kinds))
        if kind == "one place":
            full.flatten(2)[:, :, 1:] = 0
        return {"zero": full * 0, "constant": full * 0 + 3, "tiny": full * 1e-25, "large": full * 1e10}.get(kind, full)

    return {
        "activation": numbers(batch, channels, *grid),
        "gradient": numbers(batch, channels, *grid),
        "curvature": numbers(batch, channels, *grid),
        "head": numbers(batch, channels, 1)[:, :, 0],
        "moments": torch.stack([(g := numbers(batch, channels, *grid)), g**2 + 0.1, g**3], 1),
    }


def called(name: str, given: dict[str, Tensor]) -> Tensor:
    return PURE[name](**{word: given[word] for word in METHODS[name].needs})


def mapped(given: dict[str, Tensor], change: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    return {word: change(word, tensor) for word, tensor in given.items()}


def alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= 1e-8 * (1 + other.abs().max()))


@pytest.mark.parametrize("name", PURE)
@always
@given(seen=ingredients())
def test_maps_are_finite_and_of_the_grid_whatever_comes(name: str, seen: dict[str, Tensor]) -> None:
    for dtype in (torch.float64, torch.float32):
        some = mapped(seen, lambda _, tensor, dtype=dtype: tensor.to(dtype))
        found = called(name, some)
        assert found.shape == (len(seen["activation"]), *seen["activation"].shape[2:])
        assert torch.isfinite(found).all()
        assert torch.equal(found, called(name, some))


@pytest.mark.parametrize("name", [name for name in PURE if name not in ("odam", "gaussian")])  # they know places
@always
@given(seen=ingredients("random"), data=st.data())
def test_images_places_and_channels_have_no_order(name: str, seen: dict[str, Tensor], data: st.DataObject) -> None:
    found, a = called(name, seen), seen["activation"]
    images, channels = (data.draw(st.permutations(range(n))) for n in a.shape[:2])
    places = data.draw(st.permutations(range(a[0, 0].numel())))

    def moved(word: str, tensor: Tensor) -> Tensor:
        start = 3 if word == "moments" else 2
        tensor = tensor[images].index_select(start - 1, torch.tensor(channels))
        return tensor if word == "head" else tensor.flatten(start)[..., places].reshape(tensor.shape)

    expected = found[images].flatten(1)[:, places].reshape(found.shape)
    assert alike(called(name, mapped(seen, moved)), expected)
    alone = [called(name, mapped(seen, lambda _, tensor, i=i: tensor[i : i + 1])) for i in range(len(a))]
    assert alike(torch.cat(alone), found)


@pytest.mark.parametrize("name", GRADIENT)
@always
@given(seen=ingredients("random"), data=st.data())
def test_the_units_of_a_channel_are_of_no_account(name: str, seen: dict[str, Tensor], data: st.DataObject) -> None:
    """Activations times s and gradients by s are the same network, written with other units."""
    channels = seen["activation"].shape[1]
    powers = data.draw(st.lists(st.integers(-3, 3), min_size=channels, max_size=channels))
    scale = 2.0 ** torch.tensor(powers, dtype=torch.float64)

    def rescaled(word: str, tensor: Tensor) -> Tensor:
        if word == "moments":  # of g, g^2 and g^3
            power = scale[None] ** torch.tensor([[-1.0], [-2.0], [-3.0]])
            return tensor * power.reshape(1, 3, channels, *[1] * (tensor.ndim - 3))
        by = scale if word == "activation" else 1 / scale
        return tensor * by.reshape(1, channels, *[1] * (tensor.ndim - 2))

    assert alike(called(name, mapped(seen, rescaled)), called(name, seen))


@pytest.mark.parametrize("name", LINEAR)
@always
@given(seen=ingredients("random"), other=st.integers(0, 2**32 - 1), share=st.floats(-3, 3))
def test_linear_in_the_score(name: str, seen: dict[str, Tensor], other: int, share: float) -> None:
    generator = torch.Generator().manual_seed(other)
    more = mapped(seen, lambda _, tensor: torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
    more["activation"] = seen["activation"]
    both = mapped(seen, lambda word, tensor: tensor if word == "activation" else tensor + share * more[word])
    assert alike(called(name, both), called(name, seen) + share * called(name, more))


@pytest.mark.parametrize("word", ["activation", "gradient"])
@pytest.mark.parametrize("name", [*HOMOGENEOUS, "eigencam", "fem"])
@always
@given(seen=ingredients("random"), factor=st.sampled_from([0.25, 2.0, 1024.0]))
def test_twice_the_evidence_is_twice_the_map(name: str, word: str, seen: dict[str, Tensor], factor: float) -> None:
    words = {"activation"} if word == "activation" else {"gradient", "curvature", "head"}
    times = factor if METHODS[name].needs & words else 1
    more = mapped(seen, lambda word, tensor: tensor * factor if word in words else tensor)
    assert alike(called(name, more) / times, called(name, seen))


# ---------------------------------------------------------------- through a Lens, with every ingredient


def network(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """One for which a method is defined."""
    return attentive(dtype) if METHODS[name].family == "attention" else tiny(dtype)


def maps(name: str, x: Tensor, target: Any = (0, 3), net: Any = None, **how: Any) -> Tensor:
    """``(B, T, *grid)``."""
    layer = "bend2" if name == "cam" else "bend1"
    found = explained(net or network(name), x, name, list(target), layer, **{"budget": 12, **how})
    return found.reshape(len(x), len(target), *found.shape[1:])


@pytest.mark.parametrize("name", WHOLE)
def test_a_batch_of_targets_is_image_by_image_target_by_target(name: str) -> None:
    x = images(3)
    whole = maps(name, x, (0, 3, "predicted"))
    assert torch.isfinite(whole).all()
    assert whole.shape in [(3, 3, 12, 16), (3, 3, 24, 32)]
    one_by_one = [torch.cat([maps(name, one[None], [t]) for t in (0, 3, "predicted")], 1) for one in x]
    assert close(whole, torch.cat(one_by_one))
    assert close(maps(name, x[[2, 0, 1]], (0, 3, "predicted")), whole[[2, 0, 1]])
    assert torch.equal(maps(name, x, (0, 3, "predicted")), whole)


@pytest.mark.parametrize("name", WHOLE)
def test_a_network_that_always_says_the_same_is_explained_by_finite_maps(name: str) -> None:
    net = network(name, torch.float32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    assert torch.isfinite(maps(name, images(2, dtype=torch.float32), net=net)).all()


SEEDED = {"rise", "drise", "sscam", "smoothgradcampp", "random"}
SEEDED |= {"smoothgrad", "vargrad", "expectedgradients", "kernelshap", "lime"}


@pytest.mark.parametrize("name", WHOLE)
def test_only_what_is_random_depends_on_the_seed(name: str) -> None:
    x = images(2)
    first, again, other = (maps(name, x, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name not in SEEDED)
    noisy, same, else_ = (maps(name, x, seed=seed, noise_smooth=2) for seed in (1, 1, 2))
    assert torch.equal(noisy, same)
    assert torch.equal(noisy, else_) == (name == "gaussian")  # which looks at nothing


def test_the_global_random_numbers_and_the_model_stay_as_they_were() -> None:
    net = tiny().train()
    before, rng = {key: tensor.clone() for key, tensor in net.state_dict().items()}, torch.get_rng_state()
    hm.Lens(net).explain(images(2), target=[0, "predicted"], layer=["bend1", "bend2"], method="all", budget=16)
    hm.Lens(net).explain(images(2), method="rise", budget=16, aug_smooth=True, noise_smooth=2, eigen_smooth=True)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
