"""Metrics against their authors' code, pytorch-grad-cam, torch-cam, Captum and Quantus, run in the same test."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from torch import Tensor, nn
from torch.nn import functional as F
from torchcam.methods import GradCAM
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

import hookmap as hm
from hookmap.images.loading import load
from hookmap.metrics.fills import imputed
from networks import noise
from tiny import images, tiny

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus
    from quantus.functions.complexity_func import discrete_entropy

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept"),  # pytorch-grad-cam's, under NumPy 2
    pytest.mark.filterwarnings("ignore:Using quantus 'explain'"),
]

CLASS = 2


def sure_of(net: nn.Module, index: int = CLASS) -> Callable[[Tensor], Tensor]:
    @torch.no_grad()
    def scorer(x: Tensor) -> Tensor:
        return net(x).softmax(1)[:, index]

    return scorer


def net_and_image(size: tuple[int, int] = (24, 32), dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Tensor]:
    return tiny(dtype), images(1, size, dtype)[0]


def in_raster_order(maps: Tensor) -> Tensor:
    """The same maps, their ties broken from the top left, as peers break them."""
    return maps.double() - 1e-12 * torch.arange(maps[0].numel()).reshape(maps.shape[1:])


def some_maps(count: int, *size: int) -> Tensor:
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(8))


# ---------------------------------------------------------------- RISE


def causal_metric(
    scorer: Callable[[Tensor], Tensor], image: Tensor, saliency: Tensor, mode: str, step: int, substrate: Tensor
) -> tuple[Tensor, float]:
    """RISE's ``CausalMetric.single_run`` and ``auc``, from its description: so many pixels at a time, one by one."""
    start, finish = (image, substrate) if mode == "del" else (substrate, image)
    start = start.clone()
    order = np.flip(np.argsort(saliency.flatten().numpy())).copy()
    scores = [float(scorer(start[None])[0])]
    for at in range(0, len(order), step):
        pixels = order[at : at + step]
        start.flatten(1)[:, pixels] = finish.flatten(1)[:, pixels]
        scores.append(float(scorer(start[None])[0]))
    area = (sum(scores) - scores[0] / 2 - scores[-1] / 2) / (len(scores) - 1)
    return torch.tensor(scores), area


def gkern_blurred(image: Tensor, length: int = 11, deviation: float = 5) -> Tensor:
    """The substrate of RISE's insertion: a Gaussian window, here of any sums, with zeros around the image."""
    from scipy.ndimage import gaussian_filter

    dirac = np.zeros((length, length))
    dirac[length // 2, length // 2] = 1
    kernel = torch.from_numpy(gaussian_filter(dirac, deviation)).to(image)
    return F.conv2d(image[:, None], kernel[None, None], padding=length // 2)[:, 0]


@pytest.mark.parametrize("mode", ["del", "ins"])
def test_deletion_and_insertion_are_the_curves_of_rises_authors(mode: str) -> None:
    net, image = net_and_image(dtype=torch.float64)
    scorer, pixels = sure_of(net), (24, 32)
    maps = some_maps(2, *pixels)
    steps = 12
    filled = torch.zeros_like(image) if mode == "del" else gkern_blurred(image)
    metric = hm.metrics.deletion if mode == "del" else hm.metrics.insertion
    ours = metric(scorer, image, maps, cells=pixels, steps=steps, fill=filled)
    first = "most" if mode == "del" else "least"
    curves = hm.metrics.removal(scorer, image, maps, first=first, cells=pixels, steps=steps, fill=filled).scores
    for m, area, curve in zip(maps, ours, curves, strict=True):
        theirs, auc = causal_metric(scorer, image, m, mode, 24 * 32 // steps, filled)
        torch.testing.assert_close(curve if mode == "del" else curve.flip(0), theirs.double(), rtol=0, atol=1e-6)
        assert float(area) == pytest.approx(auc, abs=1e-12)


# ---------------------------------------------------------------- ROAD


def shrunk(lens: hm.Lens, path: Path, size: int) -> Tensor:
    """A photo as the model takes it, made smaller, ``(3, size, size)``."""
    whole, _ = lens.preprocessing(load(path))
    return F.interpolate(whole[None], (size, size), mode="area")[0]


@pytest.mark.parametrize("kind", ["cells", "pixels", "most of it", "a band at the border", "all but one pixel"])
def test_imputation_is_the_authors_linear_system(kind: str, cat: Path, lens: hm.Lens) -> None:
    image = shrunk(lens, cat, 64)
    removed = torch.zeros(64, 64, dtype=torch.bool)
    if kind == "cells":
        removed = F.interpolate(noise(1, 1, 8, 8), (64, 64))[0, 0] > 0
    elif kind == "pixels":
        removed = noise(64, 64) > 0
    elif kind == "most of it":
        removed = F.interpolate(noise(1, 1, 8, 8), (64, 64))[0, 0] > -1.2
    elif kind == "a band at the border":
        removed[:, :20] = True
    else:
        removed[:] = True
        removed[13, 40] = False
    ours = imputed(image, removed[None])[0]
    theirs = NoisyLinearImputer(noise=0)(image, (~removed).float())
    spread = theirs.amax() - theirs.amin()
    error = (ours - theirs) / spread
    assert error.abs().max() < 5e-3
    assert error.square().mean().sqrt() < 5e-4
    assert ours[:, ~removed].equal(image[:, ~removed])


def grad_cams_road(model: nn.Module, image: Tensor, maps: Tensor, index: int) -> Tensor:
    """pytorch-grad-cam's ROADCombined without noise: (LeRF - MoRF) / 2 over nine percentiles."""

    def mean(order: type) -> np.ndarray:
        at = range(10, 100, 10)
        metrics = [PerturbationConfidenceMetric(order(percentile, NoisyLinearImputer(noise=0))) for percentile in at]
        inputs, targets = image.expand(len(maps), *image.shape), [lambda y: y[index]] * len(maps)
        return np.mean([metric(inputs, maps.numpy(), targets, model) for metric in metrics], axis=0)

    return torch.from_numpy(mean(RemoveLeastRelevantFirst) - mean(RemoveMostRelevantFirst)) / 2


def test_road_is_pytorch_grad_cams_on_a_real_network(cat: Path, lens: hm.Lens) -> None:
    size = (64, 64)
    image = shrunk(lens, cat, 64)
    with torch.no_grad():
        index = int(lens.model(image[None]).argmax())
    probabilities = nn.Sequential(lens.model, nn.Softmax(1))
    raw = lens.explain(image[None], target=index, method="gradcam").raw
    maps = torch.cat([F.interpolate(m[None], size, mode="bilinear") for m in (raw, noise(1, 3, 3))])[:, 0]
    maps = maps / maps.amax((1, 2), keepdim=True) + 1e-3 * noise(2, *size)  # no ties
    ours = hm.metrics.road(sure_of(lens.model, index), image, maps, cells=size, fill=imputed)
    theirs = grad_cams_road(probabilities, image, maps, index)
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=2e-3)


# ---------------------------------------------------------------- torch-cam, pytorch-grad-cam, Captum


def test_deletion_and_insertion_are_torch_cams() -> None:
    net, image = net_and_image()
    with GradCAM(net, target_layer="bend1") as extractor:
        metric = DeletionInsertionMetric(extractor, lambda y: y.softmax(1), steps=12)
        metric.update(image[None], CLASS)
        theirs = metric.summary()
        m = extractor(CLASS, net(image[None]).softmax(1))[0].detach()
    m = in_raster_order(F.interpolate(m[None], (24, 32), mode="bilinear")[0])
    options: dict[str, Any] = {"cells": (24, 32), "steps": 12, "fill": "zero"}
    ours = [metric(sure_of(net), image, m, **options) for metric in (hm.metrics.deletion, hm.metrics.insertion)]
    assert [float(area) for area in ours] == pytest.approx([theirs["deletion_auc"], theirs["insertion_auc"]], abs=1e-5)


def test_average_drop_and_increase_are_torch_cams_and_pytorch_grad_cams() -> None:
    net, image = net_and_image()
    maps = torch.cat([torch.ones(1, 3, 4), some_maps(9, 3, 4).relu()])
    drop, increase = (metric(sure_of(net), image, maps) for metric in (hm.metrics.average_drop, hm.metrics.increase))
    masks = F.interpolate((maps / maps.flatten(1).amax(1)[:, None, None])[:, None], (24, 32), mode="bilinear")[:, 0]
    inputs, targets = image.expand(10, -1, -1, -1), [lambda y: y[CLASS]] * 10
    probabilities = nn.Sequential(net, nn.Softmax(1))
    whole = sure_of(net)(image[None])
    assert 0 < increase.sum() < 10
    their_drop = torch.from_numpy(DropInConfidence()(inputs, masks.numpy(), targets, probabilities))
    torch.testing.assert_close(drop, (their_drop / whole).double(), rtol=0, atol=1e-5)  # theirs isn't relative
    theirs = IncreaseInConfidence()(inputs, masks.numpy(), targets, probabilities)
    assert increase.tolist() == theirs.tolist()
    with GradCAM(net, target_layer="bend1") as extractor:
        metric = ClassificationMetric(extractor, lambda y: y.softmax(1))
        metric.update(image[None], CLASS)
        m = extractor(CLASS, net(image[None]).softmax(1))[0].detach()
        ours = [f(sure_of(net), image, m).item() for f in (hm.metrics.average_drop, hm.metrics.increase)]
        assert ours == pytest.approx([*metric.summary().values()], abs=1e-5)


def test_infidelity_is_captums_with_the_best_scale() -> None:
    net, image = net_and_image(dtype=torch.float64)
    maps = some_maps(3, 6, 8).double()
    ours = hm.metrics.infidelity(sure_of(net), image, maps, cells=(6, 8), fill="zero", samples=40)
    cells = torch.randint(2, (40, 48), generator=torch.Generator().manual_seed(0)).double()
    removed = F.interpolate(cells.reshape(40, 1, 6, 8), (24, 32)).expand(-1, 3, -1, -1)
    for m, value in zip(maps, ours, strict=True):
        # Each pixel of a cell, in each channel, gives its share of what the cell does.
        shares = F.interpolate(m[None, None], (24, 32)).expand(1, 3, -1, -1) / (16 * 3)
        theirs = captum_infidelity(
            sure_of(net),
            lambda x: (removed, x * (1 - removed)),
            image[None],
            shares,
            n_perturb_samples=40,
            normalize=True,
        )
        torch.testing.assert_close(value[None], theirs, rtol=1e-6, atol=1e-12)


def test_max_sensitivity_is_captums_for_the_same_noise() -> None:
    net, image = net_and_image(dtype=torch.float64)

    def explain(x: Tensor) -> Tensor:
        return hm.Lens(net).explain(x, target=CLASS, layer="bend1", method="hirescam").raw

    ours = hm.metrics.max_sensitivity(explain, image, radius=0.1, samples=5)
    change = (2 * torch.rand(5, *image.shape, generator=torch.Generator().manual_seed(0)) - 1) * 0.1
    theirs = sensitivity_max(lambda x: (explain(x[0]),), image[None], lambda x: (x[0] + change,), n_perturb_samples=5)
    torch.testing.assert_close(ours[None], theirs, rtol=1e-9, atol=0)


# ---------------------------------------------------------------- Quantus


def asked(metric: Any, net: nn.Module, x: Tensor, maps: Tensor, **how: Any) -> Any:
    """A metric of Quantus for class 2 of images ``(B, C, H, W)`` and maps ``(B, C or 1, H, W)``."""
    how = {"batch_size": 64, "channel_first": True, "device": "cpu", "softmax": True} | how
    return metric(model=net, x_batch=x.numpy(), y_batch=np.full(len(x), CLASS), a_batch=maps.numpy(), **how)


QUIET: dict[str, Any] = {"disable_warnings": True, "normalise": False}


class GreyNet(nn.Module):
    """A small classifier of grey images ``(B, 1, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.head = nn.Conv2d(1, 4, 3, 2, 1), nn.Linear(64, 5)
        nn.init.normal_(self.head.weight, 0, 0.5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().flatten(1))


def test_pixel_flipping_is_quantus_where_there_is_one_channel() -> None:
    net, image = GreyNet(), images(1, (8, 8), torch.float32)[0, :1]
    maps = some_maps(3, 8, 8)
    curves = hm.metrics.removal(sure_of(net), image, maps, cells=8, steps=64, fill="zero")
    metric = quantus.PixelFlipping(perturb_baseline=0.0, features_in_step=1, **QUIET)
    theirs = asked(metric, net, image.expand(3, -1, -1, -1), maps[:, None])
    torch.testing.assert_close(curves.scores[:, 1:], torch.tensor(theirs).double(), rtol=0, atol=1e-6)


def test_pixel_flipping_of_quantus_flips_one_channel_at_a_time_and_ours_pixels() -> None:
    net, image = net_and_image((4, 4))
    seen: list[Tensor] = []
    handle = net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    m = some_maps(1, 4, 4)
    curve = asked(quantus.PixelFlipping(perturb_baseline=0.0, **QUIET), net, image[None], m[:, None])
    assert len(curve[0]) == 3 * 16, "three times as many passes as there are pixels"
    changed = (seen[0][0] != image).sum(0)
    assert changed.sum() == 1, "two channels of the most important pixel are left"
    seen.clear()
    hm.metrics.removal(sure_of(net), image, m, cells=4, steps=16, fill="zero")
    handle.remove()
    changed = (seen[0][2] != image).sum(0)
    assert changed.flatten()[m.flatten().argmax()] == changed.sum() == 3


@pytest.mark.parametrize(("order", "first"), [("morf", "most"), ("lerf", "least")])
def test_region_perturbation_is_quantus(order: str, first: Any) -> None:
    net, image = net_and_image()
    maps = some_maps(3, 24, 32)
    curves = hm.metrics.removal(sure_of(net), image, maps, first=first, cells=(3, 4), steps=12, fill="zero")
    metric = quantus.RegionPerturbation(patch_size=8, order=order, perturb_baseline=0.0, **QUIET)
    theirs = torch.tensor(np.array(asked(metric, net, image.expand(3, -1, -1, -1), maps[:, None])))
    ours = curves.scores[:, :1] - curves.scores[:, 1:]
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=1e-6)


def test_ties_are_broken_by_the_seed_and_said_where_quantus_has_one_order_and_says_nothing() -> None:
    net, image = GreyNet(), images(1, (8, 8), torch.float32)[0, :1]
    m = torch.zeros(1, 1, 8, 8)
    m[..., 6:, 6:] = 1
    curves = []
    for seed in range(3):
        np.random.seed(seed)
        metric = quantus.RegionPerturbation(patch_size=2, perturb_baseline=0.0, **QUIET)
        curves.append(asked(metric, net, image[None], m)[0])
    assert np.array_equal(curves[0], curves[1])
    assert np.array_equal(curves[0], curves[2])
    options: dict[str, Any] = {"cells": 4, "steps": 16, "fill": "zero"}
    ours = [hm.metrics.removal(sure_of(net), image, m[0], seed=seed, **options) for seed in range(3)]
    assert ours[0].tied.tolist() == [15 / 16]
    assert not ours[0].scores.equal(ours[1].scores)
    assert not ours[0].scores.equal(ours[2].scores)


def test_road_of_quantus_is_an_accuracy_of_its_first_batch_and_breaks_on_colour() -> None:
    net, x = GreyNet(), images(6, (8, 8), torch.float32)[:, :1]
    maps = some_maps(6, 1, 8, 8)

    def road(batch_size: int, count: int = 6) -> list[float]:
        metric = quantus.ROAD(percentages=[20, 50, 80], noise=0, **QUIET)
        return [float(v) for v in asked(metric, net, x[:count], maps[:count], batch_size=batch_size).values()]

    assert road(2) == road(2, count=2), "the other four images don't count"
    assert road(6) != road(2)
    assert all(6 * share == pytest.approx(round(6 * share)) for share in road(6)), "counts of right answers"
    colour, image = net_and_image((8, 8))
    with pytest.raises(IndexError):
        asked(quantus.ROAD(percentages=[50], **QUIET), colour, image[None], some_maps(1, 1, 8, 8))
    assert hm.metrics.road(sure_of(colour), image, some_maps(2, 8, 8), cells=4).isfinite().all()


def test_complexity_and_sparseness_are_quantus() -> None:
    net, x, maps = GreyNet(), images(3, (8, 8), torch.float32)[:, :1], some_maps(3, 8, 8)
    for ours, theirs in ((hm.metrics.complexity, quantus.Complexity), (hm.metrics.sparseness, quantus.Sparseness)):
        values = asked(theirs(abs=True, **QUIET), net, x, maps[:, None])
        assert ours(maps).tolist() == pytest.approx([float(v) for v in values], abs=1e-5)


def test_pointing_and_energy_are_quantus() -> None:
    net, x, maps = GreyNet(), images(4, (8, 8), torch.float32)[:, :1], some_maps(4, 8, 8).relu()
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4] = True
    s_batch = mask.expand(4, 1, 8, 8).numpy()
    for ours, theirs in (
        (hm.metrics.pointing, quantus.PointingGame),
        (hm.metrics.energy, quantus.RelevanceMassAccuracy),
    ):
        values = asked(theirs(**QUIET), net, x, maps[:, None], s_batch=s_batch)
        assert ours(maps, mask).tolist() == pytest.approx([float(v) for v in values], abs=1e-5)


class OneLayer(nn.Module):
    """A classifier with one layer of weights, so that Quantus' and our random models are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).tanh().mean((2, 3))


def gradients(model: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(model(x)[:, CLASS].sum(), x)[0]


def test_randomisation_tests_are_quantus() -> None:
    torch.manual_seed(0)
    net, image = OneLayer().eval(), images(1, (12, 12), torch.float32)[0, :1]

    def explain(model: nn.Module, x: Tensor) -> Tensor:
        return gradients(model, x[None])[0, 0]

    def explained(model: nn.Module, inputs: Any, targets: Any, **how: Any) -> Any:
        return gradients(model, torch.as_tensor(inputs).float()).numpy()

    # Quantus adds one to the seed.
    how: dict[str, Any] = {"model": net, "x_batch": image[None].numpy(), "y_batch": np.array([CLASS]), "a_batch": None}
    how |= {"explain_func": explained, "channel_first": True, "device": "cpu"}
    metric = quantus.EfficientMPRT(
        seed=0, complexity_func=discrete_entropy, complexity_func_kwargs={"n_bins": 100}, **QUIET
    )
    assert hm.metrics.emprt(explain, net, image, seed=1).item() == pytest.approx(metric(**how)[0], abs=1e-6)
    ours = hm.metrics.smprt(explain, net, image, seed=1, samples=1, noise=0).item()
    options: dict[str, Any] = {"seed": 0, "nr_samples": 1, "abs": False, **QUIET}
    assert ours == pytest.approx(quantus.SmoothMPRT(return_last_correlation=True, **options)(**how)[0], abs=1e-6)
    # Their mean over layers counts the model as it is, whose map is its own, as one of the random ones.
    theirs = quantus.SmoothMPRT(return_average_correlation=True, **options)(**how)[0]
    assert theirs == pytest.approx((1 + ours) / 2, abs=1e-6)
