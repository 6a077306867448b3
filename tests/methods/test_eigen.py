"""Principal components and thresholds against full decompositions and loops, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import KernelPCA
from torch import Tensor
from torch.nn import functional as F

import hookmap as hm
from hookmap.methods import eigen, gradient
from networks import convnet, noise, parts, seen
from tiny import close, explained

# Fewer channels than places, more of them, and more of both than are decomposed in full.
SHAPES = [(2, 8, 9, 7), (2, 40, 4, 5), (1, 540, 24, 23)]


def maps(*shape: int) -> Tensor:
    """Smooth feature maps, some of them negative: as before a ReLU."""
    return F.avg_pool2d(noise(*shape[:2], shape[2] + 4, shape[3] + 4).double(), 5, 1) + 0.1


def projected(rows: Tensor) -> Tensor:
    """Places ``(N, C)`` on their first right singular vector, of either sign."""
    _, _, vectors = torch.linalg.svd(rows, full_matrices=True)
    return rows @ vectors[0]


def places(activation: Tensor) -> Tensor:
    """An activation ``(C, *grid)`` as places by channels."""
    return activation.flatten(1).T


def centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)


def along(component: Tensor, wanted: Tensor) -> Tensor:
    """With the sign in which both vary together."""
    return component * ((component - component.mean()) * (wanted - wanted.mean())).sum().sign()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_eigencam_is_the_projection_on_the_first_singular_vector(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    activation = maps(*shape)
    found = eigen.eigencam(activation.to(dtype)).double()
    for one, given in zip(found, activation, strict=True):
        expected = projected(places(given))
        strength = places(given).norm(dim=1)
        expected = expected * (expected @ strength).sign()
        assert close(one.flatten(), expected, 1e-5 if dtype == torch.float32 else 1e-8)


def test_eigencam_has_no_arbitrary_sign() -> None:
    """Positive all over after a ReLU; and the same for a layer whose channels are all turned around."""
    activation = maps(2, 8, 9, 7)
    assert eigen.eigencam(activation.relu()).min() >= 0
    assert close(eigen.eigencam(-activation), eigen.eigencam(activation), 1e-12)


def test_eigencam_of_a_real_layer_knows_no_target() -> None:
    net, x = convnet().double(), noise(2, 3, 20, 24).double()
    activation = parts(net, "bend1")[0](x).detach()
    found = explained(net, x, "eigencam", [1, 2], "bend1")
    for b in range(2):
        expected = projected(places(activation[b])).abs().reshape(10, 12)
        assert close(found[2 * b], expected, 1e-10)
        assert torch.equal(found[2 * b], found[2 * b + 1])


@pytest.mark.parametrize("shape", SHAPES)
def test_eigengradcam_is_the_component_that_varies_with_hirescam(shape: tuple[int, ...]) -> None:
    activation, slope = maps(*shape), noise(*shape, seed=4).double().abs() + 0.2
    found = gradient.eigengradcam(activation.float(), slope.float()).double()
    for one, product in zip(found, activation * slope, strict=True):
        expected = along(projected(centred(places(product))), places(product).sum(1))
        assert close(one.flatten(), expected, 1e-4)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("shape", SHAPES)
def test_segeigencam_turns_the_most_extreme_place_positive(shape: tuple[int, ...], sign: int) -> None:
    activation, slope = sign * maps(*shape), noise(*shape, seed=4).double()
    slope = slope + slope.sign()
    found = gradient.segeigencam(activation.float(), slope.float()).double()
    for one, product in zip(found, activation * slope.abs(), strict=True):
        expected = projected(centred(places(product)))
        expected = -expected if -expected.min() > expected.max() else expected
        assert close(one.flatten(), expected, 1e-4)


def test_components_of_real_gradients_are_those_of_the_product() -> None:
    net, x = convnet().double(), noise(2, 3, 20, 24).double()
    activation, slope = seen(net, x, "bend1", 2)
    component, magnitude = (explained(net, x, name, 2, "bend1") for name in ("eigengradcam", "segeigencam"))
    for b in range(2):
        product = places(activation[b] * slope[b])
        assert close(component[b].flatten(), along(projected(centred(product)), product.sum(1)), 1e-9)
        absolute = projected(centred(places(activation[b] * slope[b].abs())))
        assert close(magnitude[b].flatten().abs(), absolute.abs(), 1e-9)
        assert magnitude[b].max() == magnitude[b].abs().max()


@pytest.mark.parametrize("name", ["eigengradcam", "segeigencam"])
@pytest.mark.parametrize("shape", SHAPES)
def test_components_are_in_the_unit_of_the_gradient(name: str, shape: tuple[int, ...]) -> None:
    """Also of one that has no square in float32."""
    activation, slope = maps(*shape).float(), noise(*shape, seed=4).abs() + 0.2
    method = getattr(gradient, name)
    faint, plain = method(activation, slope * 2.0**-100), method(activation, slope)
    assert close(faint * 2.0**100, plain, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_kpcacam_is_scikit_learns_kernel_pca(shape: tuple[int, ...], size: float) -> None:
    """With faint activations, whose kernel is next to constant, and with strong ones, whose kernel is saturated."""
    activation = size * maps(*shape)
    found = eigen.kpcacam(activation.float()).double()
    for one, given in zip(found, activation, strict=True):
        peer = KernelPCA(1, kernel="sigmoid", eigen_solver="dense").fit_transform(centred(places(given)).numpy())
        expected = along(torch.from_numpy(peer[:, 0]), places(given).norm(dim=1))
        assert close(one.flatten(), expected, 1e-4)


def test_kpcacam_is_the_kernel_written_out() -> None:
    net, x = convnet().double(), noise(1, 3, 10, 12).double()
    rows = centred(places(parts(net, "bend1")[0](x)[0].detach())).numpy()
    count, channels = rows.shape
    kernel = np.zeros((count, count))
    for i, j in np.ndindex(count, count):
        kernel[i, j] = np.tanh(sum(rows[i, c] * rows[j, c] for c in range(channels)) / channels + 1)
    middle = np.eye(count) - np.ones((count, count)) / count
    values, vectors = np.linalg.eigh(middle @ kernel @ middle)
    expected = torch.from_numpy(vectors[:, -1] * np.sqrt(values[-1]))
    found = explained(net, x, "kpcacam", 2, "bend1")[0].flatten()
    assert close(found.abs(), expected.abs(), 1e-9)


def test_fem_is_two_loops() -> None:
    net, x = convnet().double(), noise(2, 3, 20, 24).double()
    activation = parts(net, "conv1")[0](x).detach()
    found = explained(net, x, "fem", 2, "conv1")
    for b in range(2):
        expected = torch.zeros(10, 12, dtype=torch.float64)
        for channel in activation[b]:
            values = channel.flatten().tolist()
            mean = sum(values) / 120
            deviation = (sum((value - mean) ** 2 for value in values) / 120) ** 0.5
            for i, j in np.ndindex(10, 12):
                expected[i, j] += mean if channel[i, j] > mean + 2 * deviation else 0
        assert close(found[b], expected, 1e-12)


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, -0.7, 1e4 / 7])
@pytest.mark.parametrize("side", [7, 14, 20])
def test_in_a_channel_that_is_the_same_everywhere_no_place_is_unusual(value: float, side: int) -> None:
    assert not eigen.fem(torch.full((1, 3, side, side), value)).any()


def test_on_an_even_image_fem_finds_nothing_and_says_so() -> None:
    with pytest.warns(hm.HookmapWarning, match="by fem is zero everywhere"):
        assert not hm.Lens(convnet()).explain(torch.zeros(1, 3, 28, 28), 2, "conv1", "fem").raw.any()


@pytest.mark.parametrize("side", [7, 30])
@pytest.mark.parametrize("name", ["eigencam", "kpcacam", "fem"])
def test_a_dead_layer_gives_a_map_of_zeros(name: str, side: int) -> None:
    found = getattr(eigen, name)(torch.zeros(2, 600, side, side))
    assert found.shape == (2, side, side)
    assert not found.any()
