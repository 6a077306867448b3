"""Methods that change activations, held against full forwards with a hook written by hand, and against Captum."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerFeatureAblation
from torch import Tensor, nn

import hookmap as hm
from networks import narrow_resnet, stirred
from tiny import close, explained, images, output_of, sure, tiny, with_changed

pytestmark = pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")
METHODS = ["ablationcam", "reciprocam", "featureocclusion"]


class Residual(nn.Module):
    """ResNet's way: what a block takes is added to what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, 1, 1))
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 8, 3, 2, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        return self.head(self.last(self.relu(stem + self.block(stem))).relu().mean((2, 3)))


class Gated(nn.Module):
    """A layer early on gates what a later one gives; the head counts samples by its input's batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.body = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.Tanh())
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 12 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        gate = torch.sigmoid(stem.mean((2, 3), keepdim=True))
        return self.head((self.norm(self.body(stem)) * gate).reshape(len(x), -1))


class Joined(nn.Module):
    """DenseNet's way: what came before is concatenated to what a layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.grow = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, 1, 1))
        self.mix = nn.Sequential(nn.Conv2d(10, 8, 3, 2, 1), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        return self.head(self.mix(torch.cat([stem, self.grow(stem)], 1)).mean((2, 3)))


class ChannelsLast(nn.Module):
    """The layer holds (B, H, W, C), and a residual connection goes around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.mlp = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU())
        self.last = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.GELU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x).permute(0, 2, 3, 1)
        return self.head(self.last((stem + self.mlp(stem)).permute(0, 3, 1, 2)).mean((2, 3)))


class Tokens(nn.Module):
    """A class token before those of 6x8 patches; attention after the layer, and the class token decides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.mlp = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).mT
        tokens = self.mlp(torch.cat([self.token.expand(len(x), -1, -1), patches], 1))
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0][:, 0])


class SequenceFirst(Tokens):
    """The layer holds (N, B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
        tokens = self.mlp(tokens.transpose(0, 1)).transpose(0, 1)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0][:, 0])


NETWORKS = {
    "plain": (tiny, "bend1"),
    "no ReLU after it": (tiny, "norm2"),
    "before a linear head": (tiny, "bend2"),
    "inside a residual block": (Residual, "block.0"),
    "a residual block": (Residual, "block"),
    "gated": (Gated, "body"),
    "concatenated": (Joined, "grow"),
    "channels last": (ChannelsLast, "mlp"),
    "class token": (Tokens, "mlp"),
    "the sequence first": (SequenceFirst, "mlp"),
}


def by_hand(net: nn.Module, layer: str, x: Tensor, index: int, method: str) -> Tensor:
    """The map of one image: a full forward per channel or place."""
    grid = output_of(net, layer, x)
    if isinstance(net, ChannelsLast):
        grid = grid.movedim(-1, 1)
    elif isinstance(net, Tokens):
        tokens = grid.transpose(0, 1) if isinstance(net, SequenceFirst) else grid
        grid = tokens[:, 1:].mT.reshape(1, 6, 6, 8)

    def as_layer(mask: Tensor) -> Tensor:
        if isinstance(net, ChannelsLast):
            return mask.movedim(1, -1)
        if isinstance(net, Tokens):
            patches = mask.flatten(2).mT
            tokens = torch.cat([torch.ones_like(patches[:, :1]), patches], 1)
            return tokens.transpose(0, 1) if isinstance(net, SequenceFirst) else tokens
        return mask

    channels, height, width = grid.shape[1:]

    def score(mask: Tensor) -> tuple[float, float]:
        """Logit and probability with the activation times a mask."""
        out = with_changed(net, layer, x, lambda output: output * as_layer(mask))
        return out[0, index].item(), out.softmax(1)[0, index].item()

    whole, _ = score(torch.ones_like(grid))
    if method == "ablationcam":
        found = torch.zeros_like(grid[0, 0])
        for k in range(channels):
            mask = torch.ones_like(grid)
            mask[:, k] = 0
            found += (whole - score(mask)[0]) / abs(whole) * grid[0, k]
        return found
    found = torch.zeros(height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            alone = torch.zeros_like(grid)
            alone[:, :, i, j] = 1
            found[i, j] = score(alone)[1] if method == "reciprocam" else whole - score(1 - alone)[0]
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wiring", NETWORKS)
def test_a_replay_is_the_full_forward_whatever_the_wiring(wiring: str, method: str) -> None:
    build, layer = NETWORKS[wiring]
    torch.manual_seed(0)
    net, x = build(), images(2)
    net = net if build is tiny else sure(stirred(net)).double()
    found = explained(net, x, method, [0, 3], layer)
    expected = torch.stack([by_hand(net, layer, one[None], index, method) for one in x for index in (0, 3)])
    assert close(found, expected)


class Twice(nn.Module):
    """One module bends twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.bend = nn.Tanh()
        self.last = nn.Conv2d(4, 8, 3, 2, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.bend(self.second(self.bend(self.first(x))))).relu().mean((2, 3)))


@pytest.mark.parametrize("method", METHODS)
def test_of_a_layer_that_runs_twice_the_last_call_is_changed(method: str) -> None:
    net, x = sure(Twice().eval()).double(), images()
    with pytest.warns(hm.HookmapWarning, match="'bend' ran 2 times; this is its last call"):
        found = explained(net, x, method, 2, "bend")

    class Unrolled(Twice):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.last(self.bend(self.second(self.first(x).tanh()))).relu().mean((2, 3)))

    once = Unrolled().double().eval()
    once.load_state_dict(net.state_dict())
    assert close(found[0], by_hand(once, "bend", x, 2, method))


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_ablationcam_weights_are_captums_ablations(layer: str) -> None:
    net, x = narrow_resnet().double(), images(1, (40, 40))
    a = output_of(net, layer, x)
    with torch.no_grad():
        y = net(x)[:, 7]
    features = torch.arange(a.shape[1])[None, :, None, None]
    peer = LayerFeatureAblation(net, net.get_submodule(layer))
    fall = peer.attribute(x, 0, target=7, layer_mask=features, perturbations_per_eval=32)
    expected = (a * fall / y.abs()[:, None, None, None]).sum(1)
    assert close(explained(net, x, "ablationcam", 7, layer), expected, 1e-9)


def test_featureocclusion_is_captums_with_a_feature_per_place() -> None:
    net, x = narrow_resnet().double(), images(2, (64, 64))
    features = torch.arange(16).reshape(1, 1, 4, 4)
    peer = LayerFeatureAblation(net, net.layer3)
    expected = peer.attribute(x, 0, target=7, layer_mask=features, perturbations_per_eval=16)[:, 0]
    assert close(explained(net, x, "featureocclusion", 7, "layer3"), expected)


def test_a_negative_score_does_not_turn_ablationcam_inside_out() -> None:
    """The formula's divisor is y, in the paper a probability-like positive number; hookmap's is |y|."""
    net, x = tiny(), images()
    with torch.no_grad():
        scores = net(x)[0]
        net.head.bias -= scores.max() + 1  # every score is negative, and no channel's share has changed
    low = explained(net, x, "ablationcam", 2, "bend1")[0]
    with torch.no_grad():
        net.head.bias += scores.max() + 1 - scores.min() + 1
    high = explained(net, x, "ablationcam", 2, "bend1")[0]
    y_low, y_high = scores[2] - scores.max() - 1, scores[2] - scores.min() + 1
    assert y_low < 0 < y_high
    assert close(low * -y_low, high * y_high)


def test_ablationcam_before_a_linear_head_in_closed_form(lens: hm.Lens) -> None:
    """There :math:`w_k = <g_k, A_k> / |y|`: XGrad-CAM's weights times the channel's sum."""
    x = images(1, (96, 96), torch.float32)
    with hm.capture(lens.model, "bn2") as seen:
        y = lens.model(x)[:, 281]
        seen.differentiate(y)
    a, g = seen["bn2"].activation, seen["bn2"].gradient
    weights = (a * g).sum((2, 3), keepdim=True) / y.detach().abs()
    found = lens.explain(x, target=281, layer="bn2", method="ablationcam").raw
    assert close(found, (weights * a).sum(1), 1e-5)


def test_without_a_score_or_an_activation_nothing_divides_by_zero() -> None:
    net, x = tiny(), images()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.zero_()
    assert not explained(net, x, "ablationcam").any()
    assert not explained(net, x, "featureocclusion").any()
    assert close(explained(net, x, "reciprocam"), torch.full((1, 12, 16), 0.2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_only_the_scores_are_rounded(method: str, dtype: torch.dtype) -> None:
    net, x = tiny(torch.float32), images(1, (6, 8), torch.float32)
    full, half = explained(net, x, method), explained(tiny(dtype), x.to(dtype), method)
    assert half.dtype == torch.float32
    scale = float(output_of(net, "head", x).abs().max())
    assert (half - full).abs().max() <= 2 * torch.finfo(dtype).eps * scale < full.abs().max()
