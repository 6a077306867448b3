"""Methods that mask the input, each derived a second time: slowly, one copy after the other, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from pytorch_grad_cam import ScoreCAM as ScoreCamPeer
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F
from torchcam.methods import ISCAM as IsCamPeer
from torchcam.methods import ScoreCAM as TorchCam

import hookmap as hm
from hookmap.methods import METHODS, masking
from networks import narrow_resnet, noise, unit
from tiny import close, explained, images, output_of, tiny

pytestmark = pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")
MASKING = [name for name, method in METHODS.items() if method.family == "masking"]


def sure(net: nn.Module, x: Tensor, index: int = 2) -> Tensor:
    """The class's probability, in the single precision in which hookmap takes the softmax."""
    with torch.no_grad():
        return net(x).softmax(1)[0, index]


def enlarged(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Bilinear up-sampling of (h, w) written out: pixels and cells are compared at their centres."""
    for axis, pixels in enumerate(size):
        cells = maps.shape[axis]
        at = ((torch.arange(pixels, dtype=torch.float64) + 0.5) * cells / pixels - 0.5).clamp(0, cells - 1)
        low = at.floor().long()
        high, share = (low + 1).clamp(max=cells - 1), at - low
        share = share[:, None] if axis == 0 else share
        maps = maps.index_select(axis, low) * (1 - share) + maps.index_select(axis, high) * share
    return maps


def scaled(mask: Tensor) -> Tensor:
    return (mask - mask.min()) / (mask.max() - mask.min()) if mask.max() > mask.min() else mask * 0


def weighted(net: nn.Module, x: Tensor, weight: Callable[[Tensor], Any]) -> Tensor:
    """The sum of ``bend1``'s channels, each with a weight that depends on its enlarged map."""
    a = output_of(net, "bend1", x)[0]
    return sum(weight(enlarged(channel, x.shape[2:])) * channel for channel in a)


# ---------------------------------------------------------------- Score-CAM and its descendants


def test_scorecam_is_the_probability_behind_each_channel() -> None:
    net, x = tiny(), images(2)
    expected = [weighted(net, one[None], lambda up, one=one: sure(net, one[None] * scaled(up))) for one in x]
    assert close(explained(net, x, "scorecam"), torch.stack(expected))


def test_scorecam_in_logits_with_a_softmax_over_channels() -> None:
    net, x = tiny(), images()
    channels = output_of(net, "bend1", x)[0]
    with torch.no_grad():
        logits = torch.stack([net(x * scaled(enlarged(a, x.shape[2:])))[0, 2] for a in channels])
    expected = torch.einsum("c,chw->hw", logits.softmax(0), channels)[None]
    assert close(explained(net, x, "scorecamsoftmax"), expected)


def grad_cam(net: nn.Module, x: Tensor, layer: str) -> Tensor:
    with ScoreCamPeer(net, [net.get_submodule(layer)]) as peer:
        peer.activations_and_grads(x)
        a = peer.activations_and_grads.activations[0]
        weights = peer.get_cam_weights(x, None, [ClassifierOutputTarget(2)], a.numpy(), None)
    return (torch.from_numpy(weights)[:, :, None, None] * a).sum(1)


def acquainted(net: nn.Module, x: Tensor) -> hm.Lens:
    """A lens that knows whether images of this size run together, which it finds out on pictures of its own."""
    lens = hm.Lens(net)
    lens.explain(x, target=2, layer="bend1", method="rise", budget=2)
    return lens


def torch_cam(net: nn.Module, x: Tensor, layer: str, peer: type = TorchCam) -> Tensor:
    with peer(net, target_layer=layer) as extractor, torch.no_grad():
        net(x)
        (weights,) = extractor._get_weights(2)
        return (weights[:, :, None, None] * extractor.hook_a[0]).sum(1)


def test_scorecamsoftmax_is_what_both_peers_have_where_nothing_is_enlarged() -> None:
    """On a layer as fine as the input the peers' three orders of scaling and enlarging are one."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 35, 5)
    ).eval()
    x = images(1, (11, 15), torch.float32)
    mine = explained(net, x, "scorecamsoftmax", layer="1")
    assert close(grad_cam(net, x, "1"), mine, 1e-5)
    assert close(torch_cam(net, x, "1"), mine, 1e-5)


def test_scorecamsoftmax_at_layer4_and_where_the_peers_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the peers normalise, and when.

    hookmap enlarges each channel with pixels and cells compared at their centres, then scales it to 0..1, as the paper
    and its authors' code do. pytorch-grad-cam enlarges with ``align_corners=True``, which moves the grid's outermost
    centres to the image's edges, then scales (with 1e-8 in the divisor). torch-cam scales on the coarse grid, then
    enlarges, so that masks don't reach 0 or 1 unless at the edge. Both take a softmax over the channels of logits (the
    baseline that torch-cam subtracts drops out in it) and hand dead channels a part of it, which only scales the map:
    maps are compared relative to their maximum. With their one step put right, both give hookmap's map.
    """
    small, photo = tiny(torch.float32), images(dtype=torch.float32)
    mine = unit(explained(small, photo, "scorecamsoftmax"))
    for peer in (grad_cam, torch_cam):
        assert (unit(peer(small, photo, "bend1")) - mine).abs().max() > 1e-3

    class Right(TorchCam):
        _normalize = staticmethod(lambda a, *_, **__: a)

        def _upsample(self, a: Tensor) -> Tensor:
            return TorchCam._normalize(super()._upsample(a), 2)

    monkeypatch.setattr(nn, "UpsamplingBilinear2d", partial(nn.Upsample, mode="bilinear", align_corners=False))
    net, x = narrow_resnet(), noise(1, 3, 40, 72)
    mine = unit(explained(net, x, "scorecamsoftmax", layer="layer4"))
    assert (unit(grad_cam(net, x, "layer4")) - mine).abs().max() <= 1e-4
    assert (unit(torch_cam(net, x, "layer4", Right)) - mine).abs().max() <= 1e-4


def test_constant_channels_mask_nothing() -> None:
    net, x = tiny(), images()
    with torch.no_grad():
        for k in (1, 4):  # the same value everywhere
            net.norm1.weight[k], net.norm1.bias[k] = 0, 2
    a = output_of(net, "bend1", x)[0]
    assert (a[[1, 4]] == 2).all()
    expected = weighted(net, x, lambda up: sure(net, x * scaled(up)) if up.min() < up.max() else 0)
    assert close(explained(net, x, "scorecam")[0], expected)
    rest = a[[0, 2, 3, 5]]
    with torch.no_grad():
        logits = torch.stack([net(x * scaled(enlarged(one, x.shape[2:])))[0, 2] for one in rest])
    expected = torch.einsum("c,chw->hw", logits.softmax(0), rest)
    assert close(explained(net, x, "scorecamsoftmax")[0], expected)


@pytest.mark.parametrize("name", MASKING)
def test_where_every_channel_is_zero_nothing_breaks(name: str) -> None:
    net, x = tiny(), images(2)
    with torch.no_grad():
        net.norm1.weight.zero_()
        net.norm1.bias.fill_(-1)
    maps = explained(net, x, name, [0, 1], budget=32)
    assert torch.isfinite(maps).all()
    if name not in ("rise", "drise"):
        assert maps.abs().max() < 1e-12


def test_sscam_averages_over_noise_on_the_enlarged_map() -> None:
    net, x, generator = tiny(), images(), torch.Generator().manual_seed(5)
    clouds = [2 * torch.randn(24, 32, generator=generator) for _ in range(3)]
    expected = weighted(net, x, lambda up: sum(sure(net, x * scaled(up + cloud)) for cloud in clouds) / 3)
    assert close(explained(net, x, partial(masking.sscam, samples=3), seed=5)[0], expected)


def test_iscam_averages_from_black_to_the_masked_photo() -> None:
    net, x = tiny(), images()
    expected = weighted(net, x, lambda up: sum(sure(net, i / 10 * x * scaled(up)) for i in range(1, 11)) / 10)
    assert close(explained(net, x, "iscam")[0], expected)


def test_torch_cam_integrates_past_the_photo() -> None:
    """It adds the fractions up (0.1, 0.3, 0.6, ... 5.5 for ten), so the network sees photos 5.5 times as bright."""
    net, x, brightest = tiny(), torch.ones(1, 3, 24, 32).double(), []
    lens = acquainted(net, x)
    handle = net.conv1.register_forward_pre_hook(lambda module, inputs: brightest.append(inputs[0].abs().amax()))
    torch_cam(net, x, "bend1", IsCamPeer)
    assert 5 < max(brightest) < 5.5
    brightest.clear()
    lens.explain(x, target=2, layer="bend1", method="iscam")
    handle.remove()
    assert max(brightest) == 1


# ---------------------------------------------------------------- groups, differences, windows


def blurred(x: Tensor, width: int, deviation: float) -> Tensor:
    """Gaussian smoothing written out, with reflection at the edges."""
    reach = torch.arange(width, dtype=torch.float64) - width // 2
    kernel = torch.exp(-(reach**2) / (2 * deviation**2))
    kernel /= kernel.sum()
    padded = torch.from_numpy(np.pad(x[0].numpy(), [(0, 0), *[(width // 2, width // 2)] * 2], "reflect"))
    rows = sum(k * padded[:, i : i + x.shape[2]] for i, k in enumerate(kernel))
    return sum(k * rows[:, :, i : i + x.shape[3]] for i, k in enumerate(kernel))[None]


def grad_cam_parts(net: nn.Module, x: Tensor, index: int) -> Tensor:
    """Each channel of ``bend1`` times its mean gradient."""
    with hm.capture(net, "bend1") as seen:
        seen.differentiate(net(x)[:, index])
    return (seen["bend1"].activation * seen["bend1"].gradient.mean((2, 3), keepdim=True))[0]


@pytest.mark.parametrize(("size", "width"), [((24, 32), 47), ((60, 52), 51)])
def test_groupcam(size: tuple[int, int], width: int) -> None:
    net, x = tiny(), images(1, size)
    behind = blurred(x, width, 50)
    expected = torch.zeros(size, dtype=torch.float64)
    for group in grad_cam_parts(net, x, 2).split(2):
        small = group.sum(0).clamp(min=0)
        small = small * (small > np.quantile(small, 0.7))
        mask = scaled(enlarged(small, size))
        expected += (sure(net, x * mask + behind * (1 - mask)) - sure(net, behind)) * mask
    assert close(explained(net, x, partial(masking.groupcam, groups=3))[0], expected, 1e-5)


def test_sidu_is_similarity_times_uniqueness() -> None:
    net, x = tiny(), images()
    a = output_of(net, "bend1", x)[0]
    binary = (a > a.amax((1, 2), keepdim=True) / 2).double()
    with torch.no_grad():
        whole = net(x).softmax(1)[0]
        seen = [net(x * enlarged(mask, (24, 32))).softmax(1)[0] for mask in binary]
    expected = torch.zeros(24, 32, dtype=torch.float64)
    for mask, one in zip(binary, seen, strict=True):
        similarity = math.exp(-float((whole - one).norm() ** 2) / (2 * 0.25**2))
        expected += similarity * sum(float((one - other).norm()) for other in seen) * enlarged(mask, (24, 32))
    assert close(explained(net, x, "sidu")[0], expected, 1e-5)
    assert torch.equal(explained(net, x, "sidu", [0, 4])[0], explained(net, x, "sidu")[0])  # it knows no target


def test_rise_averages_the_masks_of_its_seed() -> None:
    net, x, count, cells = tiny(), images(1, (25, 32)), 40, 5
    generator = torch.Generator().manual_seed(7)
    grids = torch.rand(count, 1, cells + 1, cells + 1, generator=generator) < 0.3
    down, right = (torch.randint(0, step, (count,), generator=generator) for step in (5, 7))
    expected = torch.zeros(25, 32, dtype=torch.float64)
    for grid, top, left in zip(grids, down, right, strict=True):
        mask = enlarged(grid[0].double(), (5 * 6, 7 * 6))[top : top + 25, left : left + 32]
        expected += sure(net, x * mask) * mask / (count * 0.3)
    found = explained(net, x, partial(masking.rise, cells=cells, kept=0.3), seed=7, budget=count)[0]
    assert close(found, expected, 1e-5)


def test_rise_without_a_preference_is_flat() -> None:
    """With the same probability behind all masks the map is the mean mask over its expectation: 1 everywhere."""
    net, x = tiny(), images(1, (14, 21), torch.float64)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([0.0, 0.0, 50.0, 0.0, 0.0]))
    found = explained(net, x, "rise")
    assert found.mean() == pytest.approx(1, abs=0.02)
    assert (found - 1).abs().max() < 5 / math.sqrt(4000)  # each pixel is a mean of 4000 masks of 0..1 over 0.5


def one_corner() -> nn.Module:
    """Its first class is what is bright in the upper left corner."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen = x[:, :, :9, :9].mean((1, 2, 3))
            return torch.stack([8 * seen - 6, torch.zeros_like(seen)], 1)

    return Corner()


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
@pytest.mark.parametrize("method", ["rise", "drise"])
def test_a_map_that_other_masks_would_not_give_says_so(method: str) -> None:
    lens, x = hm.Lens(one_corner(), preprocessing=None), torch.ones(2, 3, 28, 28)
    for budget, noisy in ((6, True), (2000, False)):
        for heatmap in lens.explain(x, 0, method=method, budget=budget):
            assert heatmap.caution.startswith("noisy: other masks would agree ") == noisy, (budget, heatmap.caution)
    first, other = (lens.explain(x[:1], 0, method=method, budget=400, seed=seed)[0] for seed in (0, 1))
    assert torch.corrcoef(torch.stack([first.raw.flatten(), other.raw.flatten()]))[0, 1] > masking.STEADY


def test_few_windows_are_said(tmp_path: Path) -> None:
    lens, x = hm.Lens(one_corner(), preprocessing=None), torch.ones(1, 3, 28, 28)
    assert not lens.explain(x, 0, method="occlusion")[0].caveat
    with pytest.warns(hm.HookmapWarning, match="by occlusion is coarse: windows of 50% of each side; take a larger"):
        explanation = lens.explain(x, 0, method="occlusion", budget=10)
    assert explanation[0].caveat == "coarse: windows of 50% of each side"
    assert hm.load(explanation.save(tmp_path / "maps.npz"))[0].caveat == explanation[0].caveat


@pytest.mark.parametrize("size", [(24, 32), (37, 29)])
@pytest.mark.parametrize("windows", [3, 6, 7])
def test_occlusion_averages_the_falls_of_the_windows_over_a_pixel(size: tuple[int, int], windows: int) -> None:
    net, x = tiny(), images(1, size)
    high, wide = (side // windows for side in size)
    total, cover = torch.zeros(2, *size, dtype=torch.float64)
    with torch.no_grad():
        for top in sorted({*range(0, size[0] - high, high // 2), size[0] - high}):
            for left in sorted({*range(0, size[1] - wide, wide // 2), size[1] - wide}):
                covered = x.clone()
                covered[:, :, top : top + high, left : left + wide] = 0
                total[top : top + high, left : left + wide] += (net(x) - net(covered))[0, 2]
                cover[top : top + high, left : left + wide] += 1
    assert cover.min() >= 1
    assert close(explained(net, x, partial(masking.occlusion, windows=windows))[0], total / cover)


def test_occlusion_is_captums_where_windows_fit() -> None:
    net, x = tiny(), images(2, (28, 42))
    with torch.no_grad():
        expected = Occlusion(net).attribute(x, (3, 4, 6), (3, 2, 3), target=2)
    assert close(explained(net, x, "occlusion"), expected[:, 0])


def test_sess_lays_windows_of_enlarged_copies_together() -> None:
    net, x = tiny(), images()
    pages, sizes = [], [(24, 32), (31, 41), (38, 50)]
    for high, wide in sizes:
        scaled = torch.stack([enlarged(channel, (high, wide)) for channel in x[0]])[None]
        for top in sorted({0, high - 24}):
            for left in sorted({0, wide - 32}):
                window = scaled[:, :, top : top + 24, left : left + 32]
                cam = grad_cam_parts(net, window, 2).sum(0).clamp(min=0)
                page = torch.zeros(high, wide, dtype=torch.float64)
                page[top : top + 24, left : left + 32] = enlarged(cam / cam.max(), (24, 32))
                pages.append((sure(net, window), enlarged(page, (24, 32))))
    surest = max(p for p, _ in pages)
    total = sum(p / surest * page for p, page in pages)
    count = sum((page > 0).double() for _, page in pages)
    expected = blurred((total / count.clamp(min=1))[None, None], 11, 5)[0, 0]
    assert len(pages) == 1 + 4 + 4
    assert close(explained(net, x, partial(masking.sess, scales=3))[0], expected, 1e-5)


# ---------------------------------------------------------------- what all have in common


class Blocks(nn.Module):
    """Sixteen channels on 8x8, each alight in two by two cells of its own."""

    def forward(self, x: Tensor) -> Tensor:
        row, column = torch.arange(64).reshape(8, 8) // 8, torch.arange(64).reshape(8, 8) % 8
        return F.one_hot(row // 2 * 4 + column // 2).permute(2, 0, 1).to(x).expand(len(x), -1, -1, -1)


class Square(nn.Module):
    """A black box whose answer is known: is it bright in rows 8 to 15 and columns 16 to 23?"""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks()

    def forward(self, x: Tensor) -> Tensor:
        bright = 20 * x[:, :, 8:16, 16:24].mean((1, 2, 3)) - 10
        return torch.stack([bright, self.blocks(x).sum((1, 2, 3)) * 0], 1)


@pytest.mark.parametrize("method", ["rise", "occlusion", "scorecam", "sscam", "iscam", "scorecamsoftmax"])
def test_a_black_box_whose_answer_is_known(method: str) -> None:
    heatmap = hm.Lens(Square()).explain(torch.ones(1, 3, 32, 32), target=0, layer="blocks", method=method)[0]
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[8:16, 16:24] = True
    assert inside.flatten()[heatmap.map.argmax()]
    assert heatmap.map[inside].min() > heatmap.map[~inside].mean()


def watched(net: nn.Module) -> list[Tensor]:
    """Every batch that reaches the first layer, of the network or of a copy of it."""
    batches: list[Tensor] = []
    net.conv1.register_forward_pre_hook(lambda module, inputs: batches.append(inputs[0].clone()))
    return batches


@pytest.mark.parametrize("budget", [2, 20, 100])
@pytest.mark.parametrize("name", MASKING)
def test_the_budget_is_the_most_copies_that_are_looked_at(name: str, budget: int) -> None:
    net, x = tiny(), images()
    lens = acquainted(net, x)
    batches = watched(net)
    maps = lens.explain(x, target=2, layer="bend1", method=name, budget=budget).raw
    changed = [row for batch in batches for row in batch if not torch.equal(row, x[0])]
    assert len(changed) <= budget
    assert changed or name == "sess"  # whose first window is the photo itself
    assert torch.isfinite(maps).all()


@pytest.mark.parametrize("name", [*MASKING, "ablationcam", "reciprocam", "featureocclusion"])
def test_how_many_copies_run_at_once_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = tiny(), images()
    whole = explained(net, x, name, budget=100)
    batches = watched(net)
    monkeypatch.setattr("hookmap.attribution.forward.copies_at_once", lambda *_, **__: 4)
    assert close(explained(net, x, name, budget=100), whole)
    assert max(map(len, batches)) <= 4


@pytest.mark.parametrize("name", MASKING)
def test_of_a_clip_there_is_a_map_or_a_sentence(name: str) -> None:
    net, clip = tiny(rank=3), images(1, (4, 12, 16))
    if name in ("sess", "featureablation", "kernelshap", "lime"):
        with pytest.raises(hm.ImageError, match=r"defined for images \(B, C, H, W\), and the input is \(1, 3, 4, 12"):
            explained(net, clip, name)
        return
    maps = explained(net, clip, name, budget=40)
    assert maps.shape in [(1, 2, 6, 8), (1, 4, 12, 16)]
    assert torch.isfinite(maps).all()
    assert maps.any()


@pytest.mark.parametrize("name", MASKING)
def test_half_precision_is_close_to_full(name: str) -> None:
    x = images(1, dtype=torch.float32)
    full = explained(tiny(torch.float32), x, name, budget=40)
    half = explained(tiny(torch.float16), x.half(), name, budget=40)
    assert half.dtype == torch.float32
    # What single superpixels add is as small as some ten steps of half precision at the score.
    assert close(half, full, 0.06 if name in ("featureablation", "kernelshap") else 0.03)
