"""The traced graph: the same maps as an explanation, for pictures and batches that it wasn't traced with."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.export import EXPORTABLE
from hookmap.export.explaining import Explaining
from hookmap.export.operators import forms
from hookmap.export.tracing import graph_of
from hookmap.hooks.preserve import preserved
from hookmap.methods import METHODS, find_method
from hookmap.models.onnx.about import HEATMAP
from networks import convnet, noise


def maps(lens: hm.Lens, x: Tensor, other: Tensor, target: Any, layer: str, method: str, *, any_batch: bool) -> Tensor:
    """The heatmaps ``(B, T, *grid)`` that a graph traced on ``x`` gives for another batch."""
    engine = lens.engine
    used = replace(find_method(method), uniform=None)
    layouts = {layer: engine.trace(x).layout(layer)}
    explaining = Explaining(engine, engine.goals(target), used, layouts, None, used.look_of().part)
    with preserved(engine.model):
        names = list(explaining(x))
        graph = graph_of(lambda x: tuple(explaining(x).values()), x, any_batch=any_batch)
    return graph(other)[names.index(HEATMAP)]


def expected(lens: hm.Lens, x: Tensor, target: Any, layer: str, method: str) -> Tensor:
    explanation = lens.explain(x, target, layer, method)
    return torch.stack([h.values for h in explanation]).unflatten(0, (len(x), -1))


def close(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= tolerance * other.abs().max())


OF_ATTENTION = [name for name in EXPORTABLE if any(ingredient.attention for ingredient in METHODS[name].ingredients)]


PLAIN = [name for name in EXPORTABLE if name not in OF_ATTENTION and not METHODS[name].objects]


@pytest.mark.parametrize("method", PLAIN)
def test_every_method_gives_what_explain_gives(method: str) -> None:
    lens = hm.Lens(convnet(nn.GELU))
    x, other = noise(2, 3, 24, 32), noise(3, 3, 24, 32, seed=8)
    targets = ["predicted", 3]
    found = maps(lens, x, other, targets, "bend1", method, any_batch=True)
    assert close(found, expected(lens, other, targets, "bend1", method), 1e-4)


@pytest.mark.parametrize("method", ["valuepath", "gradientattention", "hirescam"])
def test_attention_is_read_of_the_traced_graph_too(method: str) -> None:
    import timm

    torch.manual_seed(0)
    lens = hm.Lens(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5))
    x, other = noise(2, 3, 64, 64), noise(3, 3, 64, 64, seed=8)
    found = maps(lens, x, other, "predicted", "blocks.1.norm1", method, any_batch=True)
    assert close(found, expected(lens, other, "predicted", "blocks.1.norm1", method))


@pytest.mark.parametrize(
    "target",
    [
        "predicted",
        2,
        hm.Probability("predicted"),
        hm.ReST("predicted"),
        hm.Binary(1, positive=False),
        hm.Contrast("predicted", 3),
        hm.Regression(4),
        lambda output: output[:, 1] - output[:, 2],
    ],
    ids=lambda target: "a function" if inspect.isfunction(target) else str(target),
)
def test_targets_are_settled_anew_on_each_picture(target: Any) -> None:
    lens = hm.Lens(convnet())
    x, other = noise(2, 3, 24, 32), 3 * noise(5, 3, 24, 32, seed=8)
    found = maps(lens, x, other, [target], "norm2", "hirescam", any_batch=True)
    assert close(found, expected(lens, other, [target], "norm2", "hirescam"))


def test_yes_or_no_is_read_as_it_was_predicted() -> None:
    net = convnet(classes=1)
    lens = hm.Lens(net)
    x, other = noise(2, 3, 24, 32), 4 * noise(6, 3, 24, 32, seed=8)
    with torch.no_grad():
        net.head.bias -= net.eval()(other).median()
    assert len(set((net(other) > 0).flatten().tolist())) == 2
    found = maps(lens, x, other, "predicted", "norm2", "gradcam", any_batch=True)
    with pytest.warns(hm.HookmapWarning, match="yes or no"):
        wanted = expected(lens, other, "predicted", "norm2", "gradcam")
    assert close(found, wanted)


class Places(nn.Module):
    """Scores of four classes, or one, at each place."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encode = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.GELU(), nn.Conv2d(6, 6, 3, 2, 1))
        self.decode = nn.Conv2d(6, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = 5 * self.decode(F.gelu(self.encode(x)))
        return F.interpolate(scores, x.shape[2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize("classes", [4, 1])
@pytest.mark.parametrize(
    "target", ["predicted", 0, hm.Everywhere(), hm.Everywhere(of=0), hm.Binary(0), hm.Contrast("predicted", 0)], ids=str
)
def test_a_class_of_a_segmenter_is_found_in_its_own_region_of_each_picture(target: Any, classes: int) -> None:
    lens = hm.Lens(Places(classes))
    x, other = noise(2, 3, 24, 32), 2 * noise(4, 3, 24, 32, seed=9)
    found = maps(lens, x, other, [target], "encode.2", "hirescam", any_batch=True)
    if classes == 1 and isinstance(target, hm.Contrast):  # of one class with itself
        assert not found.any()
        return
    assert close(found, expected(lens, other, [target], "encode.2", "hirescam"))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (hm.Point(3, 4), "a place in one picture"),
        (hm.PerImage([1, 2]), "one target for all"),
        (hm.Everywhere(), "gives one per image"),
        (99, "class 99 doesn't exist"),
    ],
    ids=str,
)
def test_what_no_graph_can_settle_is_refused(target: Any, says: str) -> None:
    x = noise(2, 3, 24, 32)
    with pytest.raises(hm.TargetError, match=says):
        maps(hm.Lens(convnet()), x, x, [target], "norm2", "gradcam", any_batch=True)


LINES: dict[str, Callable[[Tensor], Tensor]] = {
    "max pooling": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max pooling, dilated": lambda x: F.max_pool2d(x, 2, 3, dilation=2, ceil_mode=True),
    "average pooling": lambda x: F.avg_pool2d(x, (3, 2), 2, 1),
    "average pooling, padding not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average pooling, another divisor": lambda x: F.avg_pool2d(x, (3, 2), 2, 1, divisor_override=5),
    "adaptive average pooling": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "adaptive, upwards": lambda x: F.adaptive_avg_pool2d(x, (15, 13)),
    "bilinear": lambda x: F.interpolate(x, (20, 7), mode="bilinear"),
    "bilinear, corners": lambda x: F.interpolate(x, (20, 7), mode="bilinear", align_corners=True),
    "bilinear by a factor": lambda x: F.interpolate(x, scale_factor=(1.7, 2.3), mode="bilinear"),
    "nearest": lambda x: F.interpolate(x, (20, 7), mode="nearest"),
    "bicubic": lambda x: F.interpolate(x, (20, 7), mode="bicubic"),
    "linear": lambda x: F.interpolate(x.flatten(2), 100, mode="linear"),
    "nearest of a line": lambda x: F.interpolate(x.flatten(2), 100, mode="nearest"),
    "convolution": lambda x: F.conv2d(x, noise(6, 4, 3, 2, seed=1).to(x), None, (2, 3), (1, 0), (1, 2)),
    "convolution in groups": lambda x: F.conv2d(x, noise(8, 1, 3, 3, seed=1).to(x), None, 2, 1, 1, 4),
    "transposed convolution": lambda x: F.conv_transpose2d(
        x, noise(4, 5, 3, 3, seed=1).to(x), None, 2, 1, output_padding=1
    ),
    "SiLU and its like": lambda x: F.silu(F.hardswish(F.mish(F.softplus(F.elu(F.leaky_relu(x)))))),
    "hardsigmoid": F.hardsigmoid,
    "norms": lambda x: F.group_norm(F.layer_norm(x, (11, 9)), 2),
    "convolution of a line": lambda x: F.conv1d(x.flatten(2), noise(6, 4, 5, seed=1).to(x), None, 3),
}


@pytest.mark.parametrize("name", LINES)
def test_gradients_in_other_words_are_autograds(name: str) -> None:
    forward = LINES[name]

    def slope(x: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            out = forward(leaf)
            weights = torch.linspace(-1, 1, out[0].numel(), dtype=x.dtype).reshape(out.shape[1:])
            return torch.autograd.grad((out * weights).square().sum(), leaf)

    x, other = noise(2, 4, 11, 9).double(), noise(3, 4, 11, 9, seed=5).double()
    graph = graph_of(slope, x, any_batch=True)
    ran = {node.target for node in graph.graph.nodes}
    assert not ran & forms().keys()
    # PyTorch's own hardsigmoid has its sixth in float32, whatever it is given.
    close = {"rtol": 1e-7, "atol": 1e-7} if name == "hardsigmoid" else {"rtol": 1e-9, "atol": 1e-12}
    assert torch.allclose(graph(other)[0], slope(other)[0], **close)


def test_numbers_that_only_post_processing_reads_are_no_part_of_the_graph() -> None:
    class Detector(hm.Adapter):
        @property
        def levels(self) -> list[str]:
            return ["conv2"]

        def forward(self, x: Tensor) -> hm.Detections:
            scores = self.plain[:4](x).flatten(2).mT
            boxes = torch.tensor([0.0, 0.0, 8.0, 8.0]).expand(*scores.shape[:2], 4)
            sure = scores.sigmoid()
            return hm.Detections(scores, boxes, sure, hm.keep_best(boxes, sure, least=0.01))

    lens = hm.Lens(Detector(convnet()))
    x, other = noise(1, 3, 24, 32), noise(1, 3, 24, 32, seed=8)
    found = maps(lens, x, other, ["predicted", 2], "bend1", "odam", any_batch=False)
    wanted = [lens.explain(other, target, "bend1", "odam")[0].values for target in ("box:0", 2)]
    assert close(found, torch.stack(wanted)[None])
