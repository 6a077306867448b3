"""Gradients at the pixels and superpixels: against Captum, closed forms and direct loops."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import timm
import torch
from captum import attr as captum
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.attribution import execution
from hookmap.methods import METHODS, pixels, superpixels
from hookmap.methods.ingredients.noisy_gradients import SAMPLES
from hookmap.methods.noise import noisy
from networks import convnet, noise, resnet18, stirred
from tiny import close, explained, images, tiny

CLASS = 2
PIXELS = ["saliency", "inputxgradient", "smoothgrad", "vargrad", "integratedgradients", "expectedgradients"]
PIXELS += ["guidedbackprop", "guidedgradcam", "xrai"]
SUPERPIXELS = ["featureablation", "kernelshap", "lime"]


def real() -> nn.Module:
    """A network whose activations are modules of their own, none in place, as Captum needs it."""
    torch.manual_seed(0)
    model = stirred(timm.create_model("resnet10t", pretrained=False, num_classes=5))
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model.double()


NETWORKS: dict[str, Callable[[], nn.Module]] = {"tiny": tiny, "ResNet": real}


def gradient(net: nn.Module, x: Tensor, index: int = CLASS) -> Tensor:
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(net(leaf)[:, index].sum(), leaf)[0]


class Linear(nn.Module):
    """Scores that are linear in the pixels, plus something."""

    def __init__(self, size: tuple[int, int] = (24, 32)) -> None:
        super().__init__()
        self.head = nn.Linear(3 * math.prod(size), 5, dtype=torch.float64)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))

    def weight(self) -> Tensor:
        return self.head.weight.detach()[CLASS].reshape(3, *self.size)


class Quadratic(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x**2)


# ------------------------------------------------------------------ against Captum


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_gradients_are_captums(build: Callable[[], nn.Module]) -> None:
    net, x = build(), images(2)
    found = {name: explained(net, x, name) for name in ("saliency", "inputxgradient", "integratedgradients")}
    assert close(found["saliency"], captum.Saliency(net).attribute(x, CLASS).amax(1), 1e-12)
    assert close(found["inputxgradient"], captum.InputXGradient(net).attribute(x.clone(), CLASS).sum(1), 1e-12)
    theirs = captum.IntegratedGradients(net).attribute(x, target=CLASS, n_steps=50, internal_batch_size=8)
    assert close(found["integratedgradients"], theirs.sum(1), 1e-7)  # its places on the way are float32


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_guided_gradients_are_captums_where_each_relu_is_a_module(build: Callable[[], nn.Module]) -> None:
    net, x = build(), images(2)
    layer = "bend1" if build is tiny else "layer2"
    guided, cam = (explained(net, x, name, layer=layer) for name in ("guidedbackprop", "guidedgradcam"))
    theirs = captum.GuidedBackprop(net).attribute(x.clone(), CLASS)
    both = captum.GuidedGradCam(net, net.get_submodule(layer)).attribute(x.clone(), CLASS, interpolate_mode="bilinear")
    assert close(guided, theirs.abs().amax(1), 1e-12)
    assert close(cam, both.abs().amax(1), 1e-10)


def test_feature_ablation_is_captums() -> None:
    net, x = tiny(), images()
    segments = superpixels.superpixels(x)
    assert segments.max() > 10
    theirs = captum.FeatureAblation(net).attribute(x, target=CLASS, feature_mask=segments[None, None])
    assert close(explained(net, x, "featureablation"), theirs[:, 0], 1e-10)


# ------------------------------------------------------------------ guided by nodes

RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "a function": F.relu,
    "a method": lambda x: x.relu(),
    "in place": lambda x: x.clone().relu_(),
    "a clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
}


class Functional(nn.Module):
    """A network of modules whose activations are functions."""

    def __init__(self, net: nn.Sequential, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: m for name, m in net.named_children() if not name.startswith("bend")})
        self.names = [name for name, _ in net.named_children()]
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.bend(x) if name.startswith("bend") else self.layers[name](x)
        return x


@pytest.mark.parametrize("bend", RECTIFIERS.values(), ids=RECTIFIERS)
def test_relus_are_found_however_they_are_written(bend: Callable[[Tensor], Tensor]) -> None:
    net, x = tiny(), images(2)
    model = Functional(net, bend).eval()
    assert close(explained(model, x, "guidedbackprop"), explained(net, x, "guidedbackprop"), 1e-12)
    assert not close(explained(model, x, "guidedbackprop"), explained(model, x, "saliency"), 0.05)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_where_captum_gives_the_plain_gradient_instead() -> None:
    model, x = Functional(tiny(), F.relu).eval(), images()
    theirs = captum.GuidedBackprop(model).attribute(x.clone(), CLASS)
    assert torch.equal(theirs, gradient(model, x))


def test_relu6_passes_what_is_positive_between_its_ends() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(8 * 6 * 8, 5)).double().eval()
    x = 20 * images(1, (8, 10))
    z = net[0](x)
    assert (z > 6).any()
    back = net[3].weight[CLASS].reshape(z.shape).clamp(min=0) * (z > 0) * (z < 6)
    expected = F.conv_transpose2d(back, net[0].weight).abs().amax(1)
    assert close(explained(net, x, "guidedbackprop"), expected.detach(), 1e-12)


class Gated(nn.Module):
    """A hard swish written by hand, after a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return (x * F.relu6(x + 3) / 6).mean((2, 3))


class Own(torch.autograd.Function):
    """A swish that keeps little, as libraries have them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * x.sigmoid() * (1 + x * (1 - x.sigmoid()))


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (Functional(convnet(), Own.apply), "this one has Own \\(2 times"),
        (convnet(nn.GELU), "this one has Gelu \\(2 times, first in 'bend1'\\)"),
        (convnet(nn.SiLU), "this one has Silu"),
        (convnet(nn.LeakyReLU), "this one has LeakyRelu"),
        (convnet(nn.Tanh), "this one has Tanh"),
        (convnet(nn.Identity), "this one has none"),
        (Gated(), "this one has Hardtanh \\(1 time, first outside of any layer\\)"),
    ],
)
def test_what_bends_otherwise_is_refused_in_a_sentence(net: nn.Module, sentence: str) -> None:
    with pytest.raises(hm.ModelError, match=sentence):
        hm.Lens(net.eval()).explain(noise(1, 3, 16, 16), method="guidedbackprop")


# ------------------------------------------------------------------ closed forms and direct loops


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_of_a_linear_model_all_share_the_score() -> None:
    net, x = Linear(), images(2)
    expected = (net.weight() * x).sum(1)
    for name in ("inputxgradient", "integratedgradients"):
        assert close(explained(net, x, name), expected, 1e-12)
    assert close(explained(net, x, "saliency"), net.weight().abs().amax(0).expand(2, -1, -1), 1e-12)
    assert close(explained(net, x, "smoothgrad"), net.weight().abs().amax(0).expand(2, -1, -1), 1e-12)
    assert explained(net, x, "vargrad").abs().max() == 0


def test_integrated_gradients_of_squares_are_the_squares() -> None:
    """Where gradient times input counts every square twice."""
    net, x = Quadratic(), images(2)
    expected = (net.weight() * x**2).sum(1)
    assert close(explained(net, x, "integratedgradients"), expected, 1e-12)
    assert close(explained(net, x, "inputxgradient"), 2 * expected, 1e-12)
    base = torch.tensor([0.5, -1, 2.0])[:, None, None].double()
    other = partial(pixels.integratedgradients, baseline=base)
    assert close(explained(net, x, other), (net.weight() * (x**2 - base**2)).sum(1), 1e-12)


@pytest.mark.parametrize("bend", [nn.ReLU, nn.SiLU])
def test_integrated_gradients_are_complete(bend: type[nn.Module]) -> None:
    net, x = convnet(bend).double(), images(2)
    found = hm.Lens(net).explain(x, target=[1, 4], method="integratedgradients")
    with torch.no_grad():
        difference = net(x) - net(torch.zeros_like(x[:1]))
    for heatmap in found:
        wanted = difference[heatmap.position.image, heatmap.index]
        assert abs(heatmap.raw.sum() - wanted) <= 0.02 * wanted.abs()
        assert not heatmap.caution


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_what_the_sum_misses_is_said() -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            middle = x.mean((1, 2, 3))[:, None]
            return torch.cat([torch.sigmoid(300 * (middle - 0.37)), middle], 1)

    x = torch.ones(1, 3, 8, 8)
    found = hm.Lens(Step()).explain(x, target=[0, 1], method="integratedgradients", budget=6)
    assert found[0].caution.startswith("incomplete: misses ")
    assert not found[1].caution
    assert not hm.Lens(Step()).explain(x, target=0, method="integratedgradients", budget=401)[0].caution


def test_smoothgrad_and_vargrad_are_moments_over_noisy_copies() -> None:
    net, x = tiny(), images(2)
    copies = noisy(x, SAMPLES, torch.Generator().manual_seed(0))
    each = torch.stack([gradient(net, copy) for copy in copies])
    assert close(explained(net, x, "smoothgrad"), each.mean(0).abs().amax(1), 1e-12)
    assert close(explained(net, x, "vargrad"), each.var(0, correction=0).sum(1), 1e-10)
    few = torch.stack([gradient(net, copy) for copy in noisy(x, 3, torch.Generator().manual_seed(0))])
    assert close(explained(net, x, "smoothgrad", budget=3), few.mean(0).abs().amax(1), 1e-12)


def test_expected_gradients_are_drawn_from_the_photos_colours() -> None:
    net, x = Linear(), images()
    generator = torch.Generator().manual_seed(5)
    torch.rand(100, generator=generator), torch.randperm(100, generator=generator)
    drawn = torch.randint(0, 24 * 32, (100,), generator=generator)
    mean = x[0].flatten(1)[:, drawn].mean(1)[:, None, None]
    expected = (net.weight() * (x[0] - mean)).sum(0)
    assert close(explained(net, x, "expectedgradients", seed=5)[0], expected, 1e-12)


def test_expected_gradients_with_one_baseline_are_integrated_gradients() -> None:
    net, x = Quadratic(), images()
    base = noise(1, 3, 24, 32, seed=9).double()
    method = partial(pixels.expectedgradients, baselines=base, budget=400)
    expected = (net.weight() * (x - base) * (x + base)).sum(1)
    assert close(explained(net, x, method), expected, 0.01)


# ------------------------------------------------------------------ superpixels


def sums(net: Linear, x: Tensor, segments: Tensor) -> Tensor:
    """What each superpixel adds to a linear score, at its pixels."""
    each = (net.weight() * x[0]).sum(0)
    total = torch.zeros(int(segments.max()) + 1, dtype=each.dtype).index_add_(0, segments.flatten(), each.flatten())
    return total[segments]


@pytest.mark.parametrize("name", ["featureablation", "kernelshap"])
def test_superpixels_that_add_up_are_given_what_they_add(name: str) -> None:
    net, x = Linear(), images()
    assert close(explained(net, x, name, budget=200)[0], sums(net, x, superpixels.superpixels(x)), 1e-9)


@pytest.fixture
def quarters(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Five superpixels."""
    segments = torch.arange(24)[:, None] // 12 + 2 * (torch.arange(32) // 16)
    segments[8:16, 12:20] = 4
    monkeypatch.setattr(superpixels, "superpixels", lambda *_: segments)
    return segments


def test_kernelshap_comes_to_the_shapley_values(quarters: Tensor) -> None:
    net, x = tiny(), images()

    def value(shown: tuple[int, ...]) -> float:
        with torch.no_grad():
            return float(net(x * torch.isin(quarters, torch.tensor(shown, dtype=torch.long)))[0, CLASS])

    exact = torch.zeros(5, dtype=torch.float64)
    orders = list(itertools.permutations(range(5)))
    for order in orders:
        for i, player in enumerate(order):
            exact[player] += (value(order[: i + 1]) - value(order[:i])) / len(orders)
    found = explained(net, x, partial(superpixels.kernelshap, budget=20_000))[0]
    assert close(found, exact[quarters], 0.02)
    values = torch.stack([found[quarters == i][0] for i in range(5)])
    with torch.no_grad():
        assert float(values.sum()) == pytest.approx(float((net(x) - net(0 * x))[0, CLASS]), rel=1e-9)


def test_lime_is_ridge_regression_near_the_photo(quarters: Tensor) -> None:
    net, x = tiny(), images()
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(300, 5, generator=generator) < 0.5).double()
    masks[0] = 1
    with torch.no_grad():
        p = torch.stack([net(x * mask[quarters]).softmax(1)[0, CLASS] for mask in masks])
    cosine = 1 - (masks.sum(1) / 5).sqrt()
    near = torch.exp(-(cosine**2) / 0.25**2).sqrt()
    fitted = Ridge(alpha=1).fit(masks.numpy(), p.numpy(), near.numpy())
    found = explained(net, x, "lime", budget=300)[0]
    assert close(found, torch.from_numpy(fitted.coef_)[quarters], 1e-6)


def test_xrai_ranks_regions_by_what_they_add() -> None:
    """The same by pixels, one segment at a time."""
    net, x = tiny(), images(1, (40, 56))
    base = [float(end) for end in (x.min(), x.max())]
    each = [captum.IntegratedGradients(net).attribute(x, baselines=end, target=CLASS, n_steps=50)[0] for end in base]
    attribution = torch.stack(each).mean(0).amax(0).flatten()
    enlarged = math.sqrt(40 * 56) / 224
    segments = torch.from_numpy(superpixels._segments_of_all_scales(x, enlarged))
    expected, left = torch.zeros_like(attribution), torch.ones(40 * 56, dtype=torch.bool)
    while True:
        new = [segment & left for segment in segments]
        new = [pixels for pixels in new if int(pixels.sum()) >= max(1, 50 * enlarged**2)]
        if not new:
            break
        best = max(new, key=lambda pixels: float(attribution[pixels].mean()))
        expected[best], left = attribution[best].mean(), left & ~best
    if left.any():
        expected[left] = attribution[left].mean()
    found = explained(net, x, "xrai")[0]
    assert len(found.unique()) > 5
    assert close(found, expected.reshape(40, 56), 1e-8)


def test_xrai_is_of_pictures() -> None:
    with pytest.raises(hm.ImageError, match="superpixels are defined for images"):
        hm.Lens(convnet(rank=3)).explain(noise(1, 3, 6, 8, 10), method="xrai")


# ------------------------------------------------------------------ as all methods


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
@pytest.mark.parametrize("name", [*PIXELS, *SUPERPIXELS])
def test_every_image_and_target_is_explained_on_its_own(name: str) -> None:
    net, x = tiny(), images(3)
    how: dict[str, Any] = {"layer": "bend1", "budget": 30, "seed": 7}
    together = hm.Lens(net).explain(x, target=[1, 4], method=name, **how)
    for heatmap in together:
        b, t = heatmap.position.image, heatmap.position.target
        alone = explained(net, x[b : b + 1], name, [1, 4][t], **how)[0]
        assert alone.abs().max() > 0
        assert close(heatmap.raw, alone, 1e-9)
        assert torch.equal(explained(net, x[b : b + 1], name, [1, 4][t], **how)[0], alone)


@pytest.mark.parametrize("name", ["expectedgradients", "smoothgrad", "kernelshap", "lime"])
@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_another_seed_is_another_draw(name: str) -> None:
    net, x = tiny(), images()
    one, other = (explained(net, x, name, seed=seed, budget=40) for seed in (1, 2))
    assert not close(one, other, 1e-3)


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_series_and_volumes() -> None:
    clip = noise(2, 3, 6, 8, 10).double()
    for name in [*PIXELS[:-1]]:
        found = explained(convnet(nn.ReLU, rank=3).double(), clip, name, budget=5)
        assert found.shape == (2, 6, 8, 10)
        assert found.abs().max() > 0


def test_memory_is_bounded_and_no_map_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = tiny(), images(5)
    names = ["saliency", "integratedgradients", "smoothgrad", "guidedbackprop"]
    whole = {name: explained(net, x, name) for name in names}
    activations = sum(layer.shape.numel() for layer in _shapes(net, x[:1]))
    monkeypatch.setattr(execution, "_CPU_BYTES", 3 * 8 * activations)
    seen: list[int] = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(output)) if output.requires_grad else None)
    for name in names:
        seen.clear()
        assert close(explained(net, x, name), whole[name], 1e-10)
        assert 1 < max(seen) <= 3


def _shapes(net: nn.Sequential, x: Tensor) -> list[Tensor]:
    found = []
    for layer in net:
        x = layer(x)
        found.append(x)
    return [tensor.detach() for tensor in found]


def test_threads_and_exceptions_leave_nothing_behind() -> None:
    net, x = tiny(), images()
    lens = hm.Lens(net)
    names = [name for name in PIXELS if name != "xrai"]
    expected = {name: explained(net, x, name, budget=20) for name in names}
    with torch.no_grad():
        plain = net(x)
    wrong: list[str] = []

    def explain() -> None:
        for name in names:
            found = lens.explain(x, target=CLASS, layer="bend1", method=name, budget=20).raw
            if not torch.equal(found, expected[name]):
                wrong.append(name)

    def predict() -> None:
        leaf = x.clone().requires_grad_()
        for _ in range(50):
            if not torch.allclose(net(x), plain, atol=1e-12):
                wrong.append("prediction")
            if not torch.allclose(torch.autograd.grad(net(leaf)[:, CLASS].sum(), leaf)[0], slope, atol=1e-12):
                wrong.append("gradient")

    slope = gradient(net, x)
    threads = [threading.Thread(target=job) for job in (explain, predict, explain)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

    def failing(output: Tensor) -> Tensor:
        if output.requires_grad:
            raise RuntimeError("stop")
        return output[:, CLASS]

    rng = torch.get_rng_state()
    for name in PIXELS:
        with pytest.raises(RuntimeError, match="stop"):
            lens.explain(x, target=failing, layer="bend1", method=name, budget=10)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(gradient(net, x), slope)


def test_a_real_network_in_place_and_reused() -> None:
    """torchvision's ResNet calls one in-place ReLU several times, which Captum's guided backpropagation refuses."""
    net, x = resnet18(), noise(1, 3, 64, 64)
    found = explained(net, x, "guidedbackprop", layer="layer3")
    assert found.abs().max() > 0
    assert not close(found, explained(net, x, "saliency", layer="layer3"), 0.05)


def test_signed_maps_are_drawn_around_zero_over_a_grey_photo(lens: hm.Lens, cat: Any) -> None:
    for name in ("inputxgradient", "integratedgradients"):
        look = METHODS[name].look_of()
        assert (look.part, look.scale, look.grey) == ("signed", "symmetric", True)
    heatmap = lens.explain(cat, method="inputxgradient")[0]
    drawn, plain = np.asarray(heatmap.painted(), float), heatmap.picture.pixels.astype(float)
    assert np.median(np.ptp(drawn, 2)) < 0.3 * np.median(np.ptp(plain, 2))


def test_scores_at_a_place_have_pixels_around_it() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)).double().eval()
    x = images()
    for name in ("saliency", "integratedgradients", "smoothgrad", "guidedbackprop"):
        found = hm.Lens(net).explain(x, target=lambda output: output[:, 1, 10, 20], method=name)[0].raw
        assert found[8:13, 18:23].abs().max() > 0
        found[8:13, 18:23] = 0
        assert not found.any()
    region = explained(net, x, "integratedgradients", 1, layer=None)
    with torch.no_grad():
        of_region = (net(x) - net(0 * x))[0, 1]
    covered = net(x)[0].argmax(0) == 1
    assert float(region.sum()) == pytest.approx(float(of_region[covered].mean()), rel=0.01)


def test_without_a_gradient_at_the_pixels_there_is_a_sentence() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.head = convnet(), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = self.net(x)
            return self.head(x)

    for name in ("saliency", "smoothgrad", "integratedgradients"):
        with pytest.raises(hm.DisconnectedError, match="no gradient leads from the score to the pixels"):
            hm.Lens(Frozen().eval()).explain(noise(1, 3, 24, 32), target=1, method=name)
