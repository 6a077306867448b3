"""What goes with every method, rebuilt from separate calls and explicit formulas."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM as GradCamPeer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.attribution.modifiers import competed, fused
from hookmap.methods import METHODS, as_method, masking
from networks import noise, resnet18, unit
from tiny import close, explained, images, tiny

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
SOME = ["gradcam", "layercam", "eigencam", "ablationcam", "reciprocam", "scorecam", "occlusion", "fullgrad", "edges"]


def noisy(x: Tensor, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    span = (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))[:, None, None, None]
    return [x + 0.15 * span * torch.randn(x.shape[1:], generator=generator) for _ in range(count)]


# ---------------------------------------------------------------- rival classes


def won(maps: list[Tensor]) -> Tensor:
    """What the first of these maps ``(*grid)`` is left where they compete."""
    top = max(float(one.abs().max()) for one in maps)
    shares = [torch.exp(one / (0.1 * top)) for one in maps]
    share = shares[0] / sum(shares)
    return torch.where(share - 1 / len(maps) > 0.01, maps[0] * share, torch.zeros_like(share))


@pytest.mark.parametrize(
    "method", ["gradcam", "layercam", "ablationcam", "scorecam", "finercam", "integratedgradients"]
)
@pytest.mark.parametrize("how", [{}, {"aug_smooth": True}])
def test_rivals_compete_place_by_place(method: str, how: dict[str, Any]) -> None:
    net, x = tiny(), images(2)
    with torch.no_grad():
        order = net(x).argsort(1, descending=True).tolist()
    lens = hm.Lens(net)
    each = lens.explain(x, target=list(range(5)), layer="bend1", method=method, budget=20, **how)
    raw = {(one.position.image, one.index): one.raw for one in each}
    found = lens.explain(x, target=["predicted", 4], layer="bend1", method=method, budget=20, rivals=2, **how)
    assert len(found) == 4
    for heatmap in found:
        b, own = heatmap.position.image, heatmap.index
        assert own == (order[b][0] if heatmap.position.target == 0 else 4)
        rivals = [c for c in order[b] if c != own][:2]
        assert close(heatmap.raw, won([raw[b, c] for c in (own, *rivals)]), 1e-9)
        assert heatmap.raw.any()
        assert torch.equal(lens.again(heatmap).raw, heatmap.raw)


def test_what_knows_no_target_has_no_rivals() -> None:
    net, x = tiny(), images()
    assert torch.equal(explained(net, x, "eigencam", rivals=True), explained(net, x, "eigencam"))
    assert torch.equal(explained(net, x, "gradcam", rivals=True), explained(net, x, "gradcam", rivals=3))
    assert torch.equal(explained(net, x, "gradcam", rivals=False), explained(net, x, "gradcam"))
    with pytest.raises(hm.TargetError, match="a competition of rival classes is defined for classes of whole images"):
        explained(net, x, "gradcam", lambda output: output[:, 1], rivals=2)


def test_equal_maps_leave_nothing() -> None:
    maps = noise(1, 1, 2, 3, 4).expand(3, -1, -1, -1, -1)
    assert not competed(maps).any()
    assert not competed(0 * maps).any()


# ---------------------------------------------------------------- smoothing over inputs


@pytest.mark.parametrize("method", SOME)
def test_aug_smooth_is_the_mean_of_six_explanations(method: str) -> None:
    net, x = tiny(), images(2)
    kinds = [(factor, mirrored) for factor in (0.9, 1.0, 1.1) for mirrored in (False, True)]
    alone = []
    for factor, mirrored in kinds:
        found = explained(net, factor * (x.flip(-1) if mirrored else x), method, [0, 2], budget=20)
        alone.append(found.flip(-1) if mirrored else found)
    assert close(explained(net, x, method, [0, 2], budget=20, aug_smooth=True), sum(alone) / 6)


@pytest.mark.parametrize("method", SOME)
def test_noise_smooth_is_the_mean_of_the_plain_and_the_noisy_inputs(method: str) -> None:
    net, x = tiny(), images(2) * torch.tensor([1.0, 3.0])[:, None, None, None]
    alone = [explained(net, one, method, budget=20, seed=4) for one in [x, *noisy(x, 3, seed=4)]]
    found = explained(net, x, method, budget=20, seed=4, noise_smooth=3)
    assert close(found, sum(alone) / 4)


def test_both_smoothings_together() -> None:
    net, x = tiny(), images()
    mirrored = [explained(net, f * x.flip(-1), "layercam").flip(-1) for f in (0.9, 1.0, 1.1)]
    plain = [explained(net, f * x, "layercam") for f in (0.9, 1.0, 1.1)]
    rough = [explained(net, one, "layercam") for one in noisy(x, 2, seed=0)]
    found = explained(net, x, "layercam", aug_smooth=True, noise_smooth=2)
    assert close(found, sum([*mirrored, *plain, *rough]) / 8)


def test_the_predicted_class_is_that_of_the_plain_image() -> None:
    net, x = tiny(), images()
    with torch.no_grad():
        best, second = (int(i) for i in net(x)[0].topk(2).indices)
        net.head.bias[second] += (net(x)[0, best] - net(x)[0, second]) * (1 + 1e-9)  # nearly a tie
        assert net(x)[0].argmax() == second
        assert any(net(one)[0].argmax() == best for one in noisy(x, 4, seed=0))
    found, pinned = (explained(net, x, "gradcam", target, noise_smooth=4) for target in ("predicted", second))
    assert torch.equal(found, pinned)


def test_true_means_25_noisy_copies() -> None:
    net, x = tiny(), images()
    assert torch.equal(explained(net, x, "gradcam", noise_smooth=True), explained(net, x, "gradcam", noise_smooth=25))
    assert not torch.equal(explained(net, x, "gradcam", noise_smooth=1), explained(net, x, "gradcam"))


# ---------------------------------------------------------------- smoothing over feature maps


def test_eigen_smooth_is_pytorch_grad_cams_up_to_its_sign() -> None:
    """A singular vector has no sign: the peer's is whatever LAPACK gives, hookmap's goes along with the plain map."""
    net, x, targets = resnet18(), noise(2, 3, 96, 128), [ClassifierOutputTarget(7)] * 2
    with GradCamPeer(net, [net.layer4]) as peer:
        peer(x, targets)
        hooks = peer.activations_and_grads
        seen = hooks.activations[0].numpy(), hooks.gradients[0].numpy()
        theirs = torch.from_numpy(peer.get_cam_image(x, None, targets, *seen, eigen_smooth=True))
    mine = explained(net, x, "gradcam", 7, "layer4", eigen_smooth=True)
    for one, peers in zip(mine, theirs, strict=True):
        assert min((unit(one[None]) - unit(sign * peers[None])).abs().max() for sign in (1, -1)) <= 1e-4
    plain = explained(net, x, "gradcam", 7, "layer4")
    assert ((mine * (plain - plain.mean((1, 2), keepdim=True))).sum((1, 2)) > 0).all()


def first_component(parts: Tensor, plain: Tensor) -> Tensor:
    """``(C, h, w)`` projected on the first principal component of its places, with the sign of the plain map."""
    places = parts.flatten(1).T.numpy()
    places = places - places.mean(0)
    component = torch.from_numpy(places @ np.linalg.svd(places)[2][0]).reshape(parts.shape[1:])
    return component * torch.sign((component * (plain - plain.mean())).sum())


@pytest.mark.parametrize("method", ["hirescam", "layercam", "ablationcam", "scorecam", "elementwise", "reciprocam"])
def test_eigen_smooth_of_any_method(method: str) -> None:
    """Of the weighted feature maps, where a method weights them; of the feature maps weighted by its map, elsewhere."""
    net, x = tiny(), images()
    with hm.capture(net, "bend1") as seen:
        seen.differentiate(net(x)[:, 2])
    a, g = seen["bend1"].activation[0], seen["bend1"].gradient[0]
    plain = explained(net, x, method)[0]
    parts = {"hirescam": a * g, "layercam": a * g.clamp(min=0)}.get(method, a * plain)
    if method in ("ablationcam", "scorecam"):  # the maps are linear in the channels: solve for their weights
        weights = torch.linalg.lstsq(a.flatten(1).T, plain.flatten()).solution
        parts = a * weights[:, None, None]
    assert close(explained(net, x, method, eigen_smooth=True)[0], first_component(parts, plain), 1e-5)


def test_eigen_smooth_of_a_method_with_settings_and_of_one_without_feature_maps() -> None:
    net, x = tiny(), images()
    few = partial(masking.scorecam, budget=3)
    smooth = explained(net, x, "scorecam", budget=3, eigen_smooth=True)
    assert close(explained(net, x, few, eigen_smooth=True), smooth)
    for name in ("occlusion", "edges"):
        assert torch.equal(explained(net, x, name, eigen_smooth=True), explained(net, x, name))


# ---------------------------------------------------------------- fusion of layers

LAYERS = ["layer2", "layer3", "layer4"]


@functools.cache
def apart() -> tuple[nn.Module, Tensor, dict[str, list[Tensor]]]:
    """A network, its input, and by method the maps at each of the layers."""
    net, x = resnet18(), noise(2, 3, 64, 96)
    methods = ("layercam", "gradcam")
    return net, x, {method: [explained(net, x, method, [7, 9], name) for name in LAYERS] for method in methods}


def on_the_finest_grid(maps: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], (8, 12), mode="bilinear", align_corners=False)[:, 0]


@pytest.mark.parametrize("how", ["sum", "mean", "max", "product", "layercam"])
def test_fusion_on_the_finest_grid(how: str) -> None:
    """The sum is of the signed maps; the others are of positive parts, each relative to its maximum."""
    net, x, single = apart()
    signed = [on_the_finest_grid(maps) for maps in single["gradcam"]]
    shares = [on_the_finest_grid(maps / maps.amax((1, 2), keepdim=True)) for maps in single["layercam"]]
    expected = {
        "sum": signed[0] + signed[1] + signed[2],
        "mean": (shares[0] + shares[1] + shares[2]) / 3,
        "max": torch.maximum(torch.maximum(shares[0], shares[1]), shares[2]),
        "product": shares[0] * shares[1] * shares[2],
        "layercam": torch.stack([(2 * share).tanh() for share in shares]).max(0).values,
    }[how]
    found = hm.Lens(net).explain(x, [7, 9], LAYERS, ["layercam", "gradcam", "edges"], fuse=how)
    assert len(found) == 2 * 2 * 3  # one of each method, also of the one that has no layers to fuse
    assert close(found["gradcam" if how == "sum" else "layercam"].raw, expected, 1e-5)
    assert {h.layer for h in found["layercam"]} == {f"{how} of layer2, layer3, layer4"}
    assert {h.layer for h in found["edges"]} == {"input"}


def test_a_layer_with_nothing_positive_adds_nothing_to_a_fusion() -> None:
    dead, alive = -torch.ones(1, 2, 2), torch.tensor([[[0.0, 4.0], [2.0, -1.0]]])
    share = torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])
    assert torch.equal(fused([dead, alive], "mean"), share / 2)
    assert torch.equal(fused([dead, alive], "max"), share)
    assert not fused([dead, alive], "product").any()


def test_one_layer_is_left_as_it_is_by_fusion() -> None:
    net, x = tiny(), images()
    assert torch.equal(explained(net, x, "gradcam", fuse="mean"), explained(net, x, "gradcam"))


# ---------------------------------------------------------------- parts


def test_parts_of_the_signed_map() -> None:
    net, x = tiny(torch.float32), images(dtype=torch.float32)

    def part(which: str | None, method: Any = "gradcam") -> hm.Heatmap:
        return hm.Lens(net).explain(x, target=2, layer="norm1", method=method, part=which)[0]

    raw = part("signed").raw
    assert raw.min() < 0 < raw.max()
    assert torch.equal(part("signed").values, raw)
    assert torch.equal(part("positive").values, raw.clamp(min=0))
    assert torch.equal(part("negative").values, -raw.clamp(max=0))
    assert torch.equal(part(None).values, part("positive").values)
    assert close(part("positive").map - part("negative").map, part("signed").map)

    @partial(as_method, rectified=False)
    def unrectified(activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).sum(1)

    assert (METHODS["gradcam"].rectified, unrectified.rectified) == (True, False)


def test_what_speaks_against_a_class_is_drawn_in_a_colour_of_its_own() -> None:
    net, x = tiny(torch.float32), images(dtype=torch.float32)
    drawn = {
        part: np.asarray(hm.Lens(net).explain(x, target=2, layer="norm1", part=part)[0].painted(size=32)).astype(int)
        for part in ("positive", "signed")
    }
    raw = explained(net, x, "gradcam", layer="norm1")[0]
    row, column = divmod(int(raw.argmin()), raw.shape[1])
    place = (slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2))
    red, _, blue = drawn["signed"][place].mean((0, 1)) - drawn["positive"][place].mean((0, 1))
    assert blue > red


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"part": "both"}, "part is 'both'; expected one of positive, negative, signed"),
        (
            {"fuse": "median"},
            "there's no fusion 'median' of layers; use one of sum, last, mean, max, product, layercam",
        ),
    ],
)
def test_what_there_is_not_is_said(how: dict[str, Any], sentence: str) -> None:
    with pytest.raises(hm.HookmapError, match=sentence):
        explained(tiny(), images(), "gradcam", layer=["bend1", "bend2"], **how)


def test_grids_of_different_ranks_are_not_fused() -> None:
    with pytest.raises(hm.HookmapError, match="their grids have different numbers of axes"):
        fused([torch.ones(1, 4), torch.ones(1, 4, 4)], "mean")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"budget": 0}, "budget is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"noise_smooth": -2}, "noise_smooth is -2"),
        ({"rivals": -1}, "rivals is -1"),
        ({"rivals": 5}, "rivals is 5, and the model has 4 other classes"),
        ({"fuse": "median"}, "no fusion 'median'"),
        ({"method": [lambda activation: activation.sum(1), lambda activation: activation.mean(1)]}, "two methods"),
        ({"method": lambda activation: activation.sum((1, 2, 3))}, r"gave shape \(1,\); expected maps"),
        ({"method": lambda gradient: gradient.sum((0, 1))}, r"gave shape \(12, 16\); expected maps"),
        ({"method": lambda activation: 3}, "gave a int"),
    ],
)
def test_settings_that_cannot_be_are_said(how: dict, sentence: str) -> None:
    with pytest.raises(hm.HookmapError, match=sentence):
        explained(tiny(), images(), **{"method": "gradcam", **how})
