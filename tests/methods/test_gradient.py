"""Gradient methods against derivations written out again, in float64."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian, hvp
from torch.nn.attention import SDPBackend, sdpa_kernel

import hookmap as hm
from hookmap.methods import METHODS, gradient
from networks import convnet, noise, parts, resnet18, seen
from tiny import close, explained

NAMES = [name for name, one in METHODS.items() if one.family in ("gradient", "activation") and not one.objects]
CLASS = 2


def ingredients(*grid: int, size: float = 1.0, slope: float = 1.0) -> dict[str, Tensor]:
    """Everything that these methods ask for; half of the gradients are zero, as after a ReLU."""
    activation, g, curvature = (noise(2, 6, *grid, seed=seed).double() for seed in (0, 1, 2))
    g = slope * g.clamp(min=0) - slope * (g < -1) * 0.3
    moments = torch.stack([g, 1.5 * g**2, 2 * g**3], 1)
    given = {"activation": size * activation.relu(), "gradient": g, "curvature": slope * curvature, "moments": moments}
    return given | {"head": slope * noise(2, 6).double()}


def called(name: str, given: dict[str, Tensor]) -> Tensor:
    return METHODS[name].function(**{word: given[word] for word in METHODS[name].needs})


def weighted(weights: Tensor, activation: Tensor) -> Tensor:
    """Channel by channel: weights ``(C,)`` and an activation ``(C, *grid)``."""
    return sum(w * channel for w, channel in zip(weights, activation, strict=True))


# ------------------------------------------------------------------ Grad-CAM++ and its kin


@pytest.mark.parametrize("layer", ["conv1", "bend1"])
def test_gradcampp_is_equation_19_of_the_exponential_score(layer: str) -> None:
    """Second and third derivatives of exp(score) by each single activation, by autograd; eq. 19 asks for no more."""
    net, x = convnet().double(), noise(1, 3, 8, 8).double()
    before, after = parts(net, layer)
    a = before(x).detach()
    weights = torch.zeros(6, dtype=torch.float64)
    for k, i, j in np.ndindex(6, 4, 4):
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        moved = a.clone()
        moved[0, k, i, j] += t
        y = after(moved)[0, CLASS].exp()
        (first,) = torch.autograd.grad(y, t, create_graph=True)
        (second,) = torch.autograd.grad(first, t, create_graph=True)
        (third,) = torch.autograd.grad(second, t)
        if first > 0:
            weights[k] += (first * second / (2 * second + a[0, k].sum() * third)).detach()
    expected = weighted(weights, a[0]) / after(a)[0, CLASS].exp().detach()
    assert close(explained(net, x, "gradcampp", CLASS, layer)[0], expected, 1e-10)


def authors_gradcampp(activation: np.ndarray, slope: np.ndarray, score: float) -> np.ndarray:
    """The authors' code, for one image of (H, W, C), without its final ReLU."""
    conv_first_grad = np.exp(score) * slope
    conv_second_grad = np.exp(score) * slope * slope
    conv_third_grad = np.exp(score) * slope * slope * slope
    global_sum = np.sum(activation.reshape((-1, conv_first_grad.shape[2])), axis=0)
    alpha_denom = conv_second_grad * 2.0 + conv_third_grad * global_sum.reshape((1, 1, conv_first_grad.shape[2]))
    alpha_denom = np.where(alpha_denom != 0.0, alpha_denom, np.ones(alpha_denom.shape))
    alphas = conv_second_grad / alpha_denom
    weights = np.maximum(conv_first_grad, 0.0)
    normalization = np.sum(np.sum(np.where(weights, alphas, 0.0), axis=0), axis=0)
    alphas = alphas / np.where(normalization != 0.0, normalization, np.ones(normalization.shape))
    deep_linearization_weights = np.sum((weights * alphas).reshape((-1, conv_first_grad.shape[2])), axis=0)
    return np.sum(deep_linearization_weights * activation, axis=2)


def test_gradcamppauthors_is_the_authors_code() -> None:
    net, x = convnet().double(), noise(2, 3, 12, 12).double()
    activation, slope = seen(net, x, "bend1", CLASS)
    found = explained(net, x, "gradcamppauthors", CLASS, "bend1")
    for b, score in enumerate(net(x)[:, CLASS].tolist()):
        theirs = authors_gradcampp(*(t[b].movedim(0, 2).numpy() for t in (activation, slope)), score)
        assert close(found[b], torch.from_numpy(theirs) / np.exp(score), 1e-10)
    assert not close(found, explained(net, x, "gradcampp", CLASS, "bend1"), 0.1)


def smooth_gradcampp(net: nn.Sequential, image: Tensor, layer: str, seed: int) -> Tensor:
    """Looped over the 25 noisy copies of one image."""
    generator = torch.Generator().manual_seed(seed)
    deviation = 0.15 * (image.max() - image.min())
    gradients = []
    for _ in range(25):
        noisy = image + deviation * torch.randn(image.shape, generator=generator)
        with hm.capture(net, [layer]) as captured:
            captured.differentiate(net(noisy[None])[:, CLASS])
        gradients.append(captured[layer].gradient[0])
    activation = parts(net, layer)[0](image[None])[0].detach()
    weights = torch.zeros(len(activation), dtype=torch.float64)
    for k, i, j in np.ndindex(*activation.shape):
        g = [one[k, i, j].item() for one in gradients]
        first, second, third = (sum(value**power for value in g) / 25 for power in (1, 2, 3))
        if first > 0:
            weights[k] += first * second / (2 * second + third * activation[k].sum())
    return weighted(weights, activation)


def test_smoothgradcampp_averages_over_all_noisy_inputs() -> None:
    net, x = convnet().double(), noise(2, 3, 12, 12).double() * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
    found = hm.Lens(net).explain(x, target=CLASS, layer=["conv1", "bend1"], method="smoothgradcampp", seed=5)
    for b, layer in np.ndindex(2, 2):
        expected = smooth_gradcampp(net, x[b], ["conv1", "bend1"][layer], seed=5)
        assert close(found[2 * b + layer].raw, expected, 1e-9)


def test_smoothgradcampp_is_seeded() -> None:
    lens, x = hm.Lens(convnet()), noise(1, 3, 12, 12)
    one, same, other = (
        lens.explain(x, target=CLASS, layer="bend1", method="smoothgradcampp", seed=seed).raw for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not close(one, other, 1e-3)


@pytest.mark.parametrize("slope", [1e-9, 1.0, 1e9])
def test_smoothgradcampp_without_noise_is_gradcampp(slope: float) -> None:
    """Also where squares and cubes of the gradient come to the ends of float32."""
    given = ingredients(5, 5, slope=slope, size=1 / slope)
    a, g = given["activation"], given["gradient"]
    moments = torch.stack([g, g**2, g**3], 1)
    assert close(gradient.smoothgradcampp(a.float(), moments.float()).double(), gradient.gradcampp(a, g), 1e-5)


# ------------------------------------------------------------------ XGrad-CAM


def test_xgradcam_is_equation_8_for_channels_of_any_sum() -> None:
    """Before a ReLU, channels sum to more or less than zero, to next to nothing, and to nothing: then no weight."""
    a, g = noise(1, 5, 3, 4, seed=7).double(), noise(1, 5, 3, 4, seed=8).double()
    a -= a.mean((2, 3), keepdim=True) + torch.tensor([1, 1, -1, 0, 0]).reshape(5, 1, 1)
    a[0, 1], g[0, 1] = 1e-9 * a[0, 1], 1e9 * g[0, 1]
    a[0, 3] = torch.tensor([0.5, -0.5, 1, -1, 2, -2, 0.25, -0.25, 0, 0, 3, -3]).reshape(3, 4)
    a[0, 4] = 0
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for k in range(3):
        total = sum(a[0, k, i, j] for i, j in np.ndindex(3, 4))
        expected += sum(a[0, k, i, j] / total * g[0, k, i, j] for i, j in np.ndindex(3, 4)) * a[0, k]
    assert close(gradient.xgradcam(a, g)[0], expected, 1e-9)
    assert close(gradient.xgradcam(a.float(), g.float())[0].double(), expected, 1e-5)


# ------------------------------------------------------------------ no epsilon, no unit


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].needs - {"activation", "head"}])
def test_the_unit_of_a_channel_does_not_matter(name: str) -> None:
    """A channel times c before a layer whose weights are divided by c is the same network, so the same map."""
    given = {word: tensor.float() for word, tensor in ingredients(5, 5).items()}
    scale = 2.0 ** torch.tensor([-20, -9, 0, 3, 14, 20])[:, None, None]
    powers = torch.stack([1 / scale, 1 / scale**2, 1 / scale**3])
    changed = {
        "activation": given["activation"] * scale,
        "gradient": given["gradient"] / scale,
        "curvature": given["curvature"] / scale,
        "moments": given["moments"] * powers,
    }
    assert close(called(name, changed), called(name, given), 1e-6)


# ------------------------------------------------------------------ ShapleyCAM


@pytest.mark.parametrize("layer", ["conv1", "bend1"])
def test_shapleycam_takes_the_whole_hessian(layer: str) -> None:
    net, x = convnet(nn.SiLU).double(), noise(1, 3, 8, 8).double()
    _, after = parts(net, layer)
    a, g = seen(net, x, layer, CLASS)
    bend = hessian(lambda flat: after(flat.reshape(a.shape))[0, CLASS], a.flatten())
    weights = (g - (bend @ a.flatten()).reshape(a.shape) / 2).mean((2, 3))[0]
    found = explained(net, x, "shapleycam", CLASS, layer)
    assert close(found[0], weighted(weights, a[0]), 1e-10)
    assert not close(found, explained(net, x, "gradcam", CLASS, layer), 1e-2)


@pytest.mark.parametrize("target", [hm.ReST(CLASS), hm.Probability(CLASS), lambda output: output[:, CLASS] ** 3])
def test_shapleycam_sees_the_bend_of_the_target(target: object) -> None:
    """All after the layer is piecewise linear: only the target's own curvature is left."""
    net, x = convnet().double(), noise(2, 3, 12, 12).double()
    before, after = parts(net, "bend2")
    a = before(x).detach()
    _, curvature = hvp(lambda some: target(after(some)).sum(), a, a)
    g = torch.autograd.functional.jacobian(lambda some: target(after(some)).sum(), a)
    weights = (g - curvature / 2).mean((2, 3))
    found = explained(net, x, "shapleycam", target, "bend2")
    for b in range(2):
        assert close(found[b], weighted(weights[b], a[b]), 1e-10)
    assert not close(found, explained(net, x, "gradcam", target, "bend2"), 1e-2)


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_shapleycam_is_gradcam_where_nothing_bends(layer: str) -> None:
    net, x = resnet18(), noise(2, 3, 64, 64)
    plain, shapley = explained(net, x[:1], ["gradcam", "shapleycam"], CLASS, layer)
    assert plain.any()
    assert torch.equal(plain, shapley)


# ------------------------------------------------------------------ Finer-CAM


@pytest.mark.parametrize("classes", [9, 4, 3, 2])
def test_finercam_is_the_mean_difference_to_the_three_nearest_classes(classes: int) -> None:
    net, x = convnet(classes=classes).double(), noise(2, 3, 12, 12).double()
    found = explained(net, x, "finercam", 1, "bend1")
    for b in range(2):
        logits = net(x)[b].tolist()
        others = sorted((k for k in range(classes) if k != 1), key=lambda k: abs(logits[k] - logits[1]))[:3]
        activation, own = seen(net, x[b : b + 1], "bend1", 1)
        g = sum(own - 0.6 * seen(net, x[b : b + 1], "bend1", k)[1] for k in others) / len(others)
        assert len(others) == min(3, classes - 1)
        assert close(found[b], weighted(g[0].mean((1, 2)), activation[0]), 1e-10)


def test_finercam_needs_classes_to_compare() -> None:
    x = noise(1, 3, 12, 12)
    with pytest.raises(hm.LayerError, match="compares a class with others, and the model's output has only one"):
        hm.Lens(convnet(classes=1)).explain(x, target=0, method="finercam")
    with pytest.raises(hm.TargetError, match="finercam is defined for classes"):
        hm.Lens(convnet()).explain(x, target=lambda output: output.sum(1), method="finercam")


# ------------------------------------------------------------------ CAM, and the layer before the pooling


def test_cam_is_the_heads_weights_and_z_times_gradcam() -> None:
    net, x = resnet18().double(), noise(2, 3, 64, 96).double()
    activation = nn.Sequential(*list(net.children())[:-2])(x).detach()
    cam, gradcam = (explained(net, x, name, 207, "layer4") for name in ("cam", "gradcam"))
    for b in range(2):
        assert close(cam[b], weighted(net.fc.weight[207].detach(), activation[b]), 1e-12)
    assert close(cam, 2 * 3 * gradcam, 1e-12)
    assert close(cam.sum((1, 2)) / 6 + net.fc.bias[207].detach(), net(x)[:, 207].detach(), 1e-12)


def test_cam_reads_a_convolution_as_a_head() -> None:
    net, x = convnet().double(), noise(1, 3, 12, 12).double()
    conv = nn.Conv2d(8, 7, 1).double()
    conv.load_state_dict({"weight": net.head.weight[:, :, None, None], "bias": net.head.bias})
    other = nn.Sequential(*net[:7], conv, nn.Flatten())
    assert close(explained(other, x, "cam", CLASS, "5"), explained(net, x, "cam", CLASS, "bend2"), 1e-12)


@pytest.mark.parametrize("layer", ["layer3", "layer4.1.bn2", "layer4.0"])
def test_cam_is_refused_elsewhere(layer: str) -> None:
    with pytest.raises(hm.LayerError, match=f"average pooling and one linear layer only, and '{layer}' isn't"):
        hm.Lens(resnet18()).explain(noise(1, 3, 64, 64), layer=layer, method="cam")


def test_before_pooling_and_a_linear_head_three_methods_are_one_and_the_user_is_told_once() -> None:
    lens, x, three = hm.Lens(resnet18()), noise(2, 3, 64, 64), ["gradcam", "xgradcam", "hirescam"]
    with pytest.warns(hm.HookmapWarning, match="'layer4' the methods gradcam, hirescam, xgradcam give the same map"):
        found = lens.explain(x, target=207, layer="layer4", method=[*three, "layercam"])
    for plain, other, same, layercam in zip(*[iter(found)] * 4, strict=True):
        assert torch.equal(plain.raw, other.raw)
        assert torch.equal(plain.raw, same.raw)
        assert not close(plain.raw, layercam.raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error", hm.HookmapWarning)
        lens.explain(x, target=207, layer="layer4", method=three)
    with pytest.warns(hm.HookmapWarning, match="at 'layer3' .* hirescam takes it place by place"):
        elsewhere = lens.explain(x[:1], target=207, layer="layer3", method=three).raw
    assert not close(elsewhere[0], elsewhere[1], 1e-3)
    assert not close(elsewhere[0], elsewhere[2], 1e-3)


def test_the_one_map_before_the_pooling_is_what_each_formula_gives() -> None:
    activation, slope = seen(convnet().double(), noise(2, 3, 12, 12).double(), "bend2", CLASS)
    plain = gradient.gradcam(activation, slope)
    assert close(gradient.xgradcam(activation, slope), plain, 1e-12)
    assert close(gradient.hirescam(activation, slope), plain, 1e-12)


# ------------------------------------------------------------------ batches, precisions, ranks


@pytest.mark.parametrize(
    ("build", "layer"), [(convnet, "bend1"), (convnet, "bend2"), (resnet18, "layer3"), (resnet18, "layer4")]
)
@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_every_image_and_target_of_a_batch_is_as_it_is_alone(build: Callable[[], nn.Module], layer: str) -> None:
    lens, x, targets = hm.Lens(build()), noise(3, 3, *((96, 128) if build is resnet18 else (24, 32))), [CLASS, 5]
    slow = {"smoothgradcampp"} if build is resnet18 else set()
    names = [name for name in NAMES if name not in slow and (name != "cam" or layer in ("bend2", "layer4"))]
    together = lens.explain(x, target=targets, layer=layer, method=names)
    alone = [lens.explain(x[b : b + 1], target=t, layer=layer, method=names) for b in range(3) for t in targets]
    for found, expected in zip(together, [heatmap for one in alone for heatmap in one], strict=True):
        assert found.method.name == expected.method.name
        assert close(found.raw, expected.raw, 1e-5), found.method.name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    """Sums over places leave float16's range at its upper end, products with gradients at its lower."""
    rounded = {word: t.to(dtype) for word, t in ingredients(28, 28, size=300, slope=1e-4).items()}
    found = called(name, rounded)
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert close(found, called(name, {word: t.float() for word, t in rounded.items()}), 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_close_to_float64(name: str) -> None:
    given = ingredients(5, 7)
    exact = called(name, given)
    assert exact.dtype == torch.float64
    assert close(called(name, {word: t.float() for word, t in given.items()}).double(), exact, 1e-5)


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
def test_a_model_of_any_precision_is_explained() -> None:
    x = noise(2, 3, 16, 16)
    exact = hm.Lens(convnet(nn.SiLU).double()).explain(x, target=CLASS, layer="bend2", method=NAMES)
    single = hm.Lens(convnet(nn.SiLU)).explain(x, target=CLASS, layer="bend2", method=NAMES)
    half = hm.Lens(convnet(nn.SiLU).bfloat16()).explain(x, target=CLASS, layer="bend2", method=NAMES)
    for one, other, rough in zip(exact, single, half, strict=True):
        assert (one.raw.dtype, other.raw.dtype, rough.raw.dtype) == (torch.float64, torch.float32, torch.float32)
        assert close(other.raw.double(), one.raw, 1e-4), one.method.name
        assert torch.isfinite(rough.raw).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "odam"])  # it smooths over neighbours
@pytest.mark.parametrize("grid", [(24,), (2, 3, 4)])
def test_places_may_lie_along_any_number_of_axes(name: str, grid: tuple[int, ...]) -> None:
    flat = ingredients(4, 6)
    laid = {word: t if word == "head" else t.flatten(-2).unflatten(-1, grid) for word, t in flat.items()}
    assert close(called(name, laid).flatten(1), called(name, flat).flatten(1), 1e-12)


class Series(nn.Module):
    """Images of one row into a network for series."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convnet(nn.SiLU, rank=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x[:, :, 0])


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
@pytest.mark.parametrize("layer", ["bend1", "bend2"])
def test_series_and_volumes_are_explained(layer: str) -> None:
    """Through Lens as by the formula, on the activation and gradient that autograd gives."""
    names = [name for name in NAMES if METHODS[name].needs <= {"activation", "gradient"} and name != "finercam"]
    series, volume = Series().double(), convnet(nn.SiLU, rank=3).double()
    row, clip = noise(2, 3, 1, 40).double(), noise(2, 3, 6, 8, 10).double()
    layouts = {f"net.{layer}": hm.Layout("channels first", grid=(20,))}
    for lens, net, x, inner, where, grid in [
        (hm.Lens(series, layouts=layouts), series.net, row, row[:, :, 0], f"net.{layer}", (20,)),
        (hm.Lens(volume), volume, clip, clip, layer, (3, 4, 5)),
    ]:
        activation, slope = seen(net, inner, layer, CLASS)
        for name in names:
            expected = called(name, {"activation": activation, "gradient": slope})
            assert expected.shape == (2, *grid)
            assert close(lens.explain(x, target=CLASS, layer=where, method=name).raw, expected, 1e-9), name
        rest = lens.explain(x, target=CLASS, layer=where, method=["smoothgradcampp", "shapleycam", "finercam"])
        assert {heatmap.raw.shape for heatmap in rest} == {grid}
        assert all(heatmap.raw.any() for heatmap in rest)


def test_shapleycam_looks_through_fused_attention() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64).eval().double()
    nn.init.normal_(model.head.weight)
    x, kept = noise(1, 3, 64, 64).double(), []
    handle = model.blocks[9].register_forward_hook(lambda module, inputs, output: kept.append(output))
    with sdpa_kernel(SDPBackend.MATH):
        score = model(x)[0, 2]
    handle.remove()
    (g,) = torch.autograd.grad(score, kept[0], create_graph=True)
    (bend,) = torch.autograd.grad((g * kept[0].detach()).sum(), kept[0])
    weights = (g - bend / 2)[0, 1:].mean(0)
    expected = (kept[0][0, 1:] @ weights).reshape(4, 4).detach()
    assert close(explained(model, x, "shapleycam", 2, "blocks.9")[0], expected, 1e-9)


class Frozen(nn.Module):
    """Runs its backbone without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(x)
        return self.head(features.mean((2, 3)))


@pytest.mark.parametrize("method", ["gradcam", "smoothgradcampp", "shapleycam", "finercam", "sess"])
def test_a_backbone_that_runs_without_gradients_is_explained(method: str) -> None:
    assert explained(Frozen().eval(), noise(2, 3, 32, 32), method, 2, "backbone.1").any()
