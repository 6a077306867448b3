"""Models of transformers: called, read and preprocessed as the library itself does it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor, nn

import hookmap as hm
from hookmap import models
from hookmap.images.loading import load
from hookmap.models.transformers.adapters import DepthEstimator, MaskSegmenter
from hookmap.models.transformers.detectors import PhraseDetector, QueryDetector, TextDetector
from hookmap.models.transformers.processing import read
from library_models import SMALL, by_hand, photos, slope, snapshot, to_grid, unchanged
from tiny_transformers import DETR, VIT, model, resnet

SQUARE = hm.Preprocessing(size=(64, 64), resize=(64, 64))

CLASSIFIERS = {
    "vit": "tokens 1+8x8",
    "deit": "tokens 2+8x8",
    "beit": "tokens 1+8x8",
    "dinov2 with registers": "tokens 4+8x8",
    "swin": "tokens 4x4",
    "convnext": "NCHW 2x2",
    "resnet": "NCHW 2x2",
    "regression": "tokens 1+8x8",
}
DETECTORS = {
    "detr": ["model.encoder"],
    "table transformer": ["model.encoder"],
    "conditional detr": ["model.encoder"],
    "dab-detr": ["model.encoder"],
    "deformable detr": [f"model.input_proj.{i}" for i in range(3)],
    "rt-detr": ["model.encoder.fpn_blocks.1", "model.encoder.pan_blocks.0", "model.encoder.pan_blocks.1"],
    "rt-detr v2": ["model.encoder.fpn_blocks.1", "model.encoder.pan_blocks.0", "model.encoder.pan_blocks.1"],
    "d-fine": ["model.encoder.fpn_blocks.1", "model.encoder.pan_blocks.0", "model.encoder.pan_blocks.1"],
    "yolos": ["vit.encoder.layer.3.layernorm_before"],
}
PROCESSORS: dict[str, type[Any]] = {
    "detr": hf.DetrImageProcessor,
    "table transformer": hf.DetrImageProcessor,
    "conditional detr": hf.ConditionalDetrImageProcessor,
    "dab-detr": hf.ConditionalDetrImageProcessor,
    "deformable detr": hf.DeformableDetrImageProcessor,
    "rt-detr": hf.RTDetrImageProcessor,
    "rt-detr v2": hf.RTDetrImageProcessor,
    "d-fine": hf.RTDetrImageProcessor,
    "yolos": hf.YolosImageProcessor,
}
DENSE = {
    "segformer": "segformer.stages.3",
    "upernet": "backbone.hidden_states_norms.stage4",
    "beit segmenter": "beit.layers.2",
    "dpt segmenter": "dpt.encoder.layer.3",
    "maskformer": "model.pixel_level_module.encoder.hidden_states_norms.3",
    "mask2former": "model.pixel_level_module.encoder.hidden_states_norms.stage4",
    "oneformer": "model.pixel_level_module.encoder.hidden_states_norms.stage4",
    "dpt depth": "dpt.encoder.layer.3",
    "depth anything": "backbone.encoder.layer.3",
    "glpn": "glpn.encoder.block.3.0",
}
# Layers that a decoder reads from the library's records, while the next layer reads them too.
RECORDED = {
    "segformer": ["segformer.stages.1"],
    "beit segmenter": ["beit.layers.1"],
    "dpt segmenter": ["dpt.encoder.layer.1"],
    "depth anything": ["backbone.encoder.layer.1"],
}


class Words:
    """Knows nine words and a full stop."""

    all_special_ids = (0, 1, 39)
    known = ("a", "cat", "dog", "remote", "control", "photo", "of", "the", "car", ".")

    def __call__(self, texts: list[str], *, max_length: int, padding: Any = False, **_: Any) -> dict[str, Tensor]:
        rows = [[1, *map(self.convert_tokens_to_ids, t.replace(".", " .").split()), 39] for t in texts]
        length = max_length if padding else max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}

    def convert_tokens_to_ids(self, word: str) -> int:
        return 2 + self.known.index(word)


def detector(name: str, least: float) -> hm.Lens:
    adapter = models.describe(model(name)).adapter
    assert isinstance(adapter, QueryDetector)
    adapter.least = least
    return hm.Lens(adapter, preprocessing=SMALL, labels=["cat", "dog", "car", "cup"])


def inputs(name: str, x: Tensor) -> dict[str, Tensor]:
    """What a model of this family is called with."""
    if name != "oneformer":
        return {"pixel_values": x}
    # The library's processor fills the rest with zeros.
    tokens = open_clip.SimpleTokenizer(context_length=77)(["the task is semantic"])
    return {"pixel_values": x, "task_inputs": tokens.expand(len(x), -1)}


# -------------------------------------------------------------------------------------------------- classifiers


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name: str, cat: Path) -> None:
    net = model(name)
    before = snapshot(net)
    preprocessing = hm.Preprocessing(size=(128, 128), resize=(128, 128)) if name == "swin" else SQUARE
    lens = hm.Lens(net, preprocessing=preprocessing)
    x = preprocessing(load(cat))[0][None]
    layer = lens.default_layer(x)
    assert str(lens.engine.trace(x).layout(layer)) == CLASSIFIERS[name]
    found, cam = lens.explain(cat, target=0, layer=layer, method=[slope, "gradcam"])
    assert layer in lens.explain(cat, target=0)[0].question.layers
    assert cam.raw.isfinite().all()
    assert cam.raw.std() > 0
    # The last layer through whose places the decision passes: its gradient is alive and is what autograd says.
    gradient = by_hand(net, layer, {"pixel_values": x}, lambda output: output.logits[0, 0])
    wanted = slope(to_grid(lens, x, layer, gradient))[0]
    assert torch.allclose(found.raw, wanted, atol=1e-5 * float(wanted.abs().max()) + 1e-9)
    assert wanted.abs().max() > 0
    with torch.no_grad():
        logits = net(pixel_values=x).logits[0]
    assert lens.predict(cat)[0][0].score == pytest.approx(float(logits.max()), abs=1e-5)
    assert unchanged(net, before)


# -------------------------------------------------------------------------------------------------- detectors


@pytest.mark.parametrize("name", DETECTORS)
def test_detections_equal_the_library_s(name: str, cat: Path) -> None:
    lens = detector(name, 0.3)
    net, photo = lens.model, load(cat)
    x, _ = SMALL(photo)
    with torch.no_grad():
        output = net(pixel_values=x[None])
    (theirs,) = PROCESSORS[name]().post_process_object_detection(
        output, threshold=0.3, target_sizes=[(photo.height, photo.width)]
    )
    order = theirs["scores"].argsort(descending=True, stable=True)
    mine = lens.predict(cat)[0]
    assert len(mine) == len(order) > 0
    assert torch.allclose(torch.tensor([p.probability for p in mine]), theirs["scores"][order], atol=1e-6)
    assert [p.index for p in mine] == theirs["labels"][order].tolist()
    boxes = theirs["boxes"][order].clamp(min=0)
    boxes = torch.minimum(boxes, torch.tensor([photo.width, photo.height] * 2))
    assert torch.allclose(torch.tensor([p.box for p in mine]), boxes.float(), atol=1e-3)


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detection_s_gradient_is_that_of_its_raw_logit(name: str, cat: Path) -> None:
    lens = detector(name, 0.05)
    net, x = lens.model, SMALL(load(cat))[0][None]
    before = snapshot(net)
    assert lens.engine.default_layers(x) == DETECTORS[name]
    with torch.no_grad():
        row, label = lens.engine.called(x).kept[0][1]
    for layer in DETECTORS[name]:
        (found,) = lens.explain(x, hm.Detection(1), layer=layer, method=slope)
        gradient = by_hand(net, layer, {"pixel_values": x}, lambda output: output.logits[0, row, label])
        wanted = slope(to_grid(lens, x, layer, gradient))[0]
        assert torch.allclose(found.raw, wanted, atol=1e-4 * float(wanted.abs().max()))
        assert wanted.abs().max() > 0
    (found,) = lens.explain(cat, hm.Detection(1))
    assert found.raw.isfinite().all()
    assert found.raw.std() > 0
    assert found.map.shape == (load(cat).height, load(cat).width)
    assert unchanged(net, before)


def test_a_finite_difference_in_feature_space_confirms() -> None:
    net = model("detr").double()
    lens = hm.Lens(QueryDetector(net, least=0.0), preprocessing=SMALL)
    x = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    row, label = lens.engine.called(x).kept[0][0]
    kept: list[Tensor] = []

    def moved(by: Tensor | float) -> float:
        def move(_: nn.Module, __: Any, output: Any) -> Any:
            kept.append(output.last_hidden_state)
            output.last_hidden_state = output.last_hidden_state + by
            return output

        handle = net.model.encoder.register_forward_hook(move)
        with torch.no_grad():
            score = float(net(pixel_values=x).logits[0, row, label])
        handle.remove()
        return score

    with hm.capture(lens.engine.called, "model.encoder") as seen:
        seen.differentiate(lens.engine.called(x).scores[:, row, label])
    gradient = seen["model.encoder"].gradient
    moved(0.0)
    direction = torch.randn_like(kept[0])
    step = 1e-5
    slope_there = (moved(step * direction) - moved(-step * direction)) / (2 * step)
    assert slope_there == pytest.approx(float((gradient * direction).sum()), rel=1e-6)


def test_rows_are_compared_by_place_where_queries_are_chosen_from_the_image() -> None:
    x = torch.randn(2, 3, 96, 128)
    for name in DETECTORS:
        with torch.no_grad():
            found = QueryDetector(model(name), least=0.0)(x)
        assert found.fixed == (name not in ("rt-detr", "rt-detr v2", "d-fine"))
        assert len(found.kept) == 2


@pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")
@pytest.mark.parametrize("name", ["detr", "rt-detr", "yolos"])
def test_masking_methods_replay_a_detector(name: str, cat: Path) -> None:
    lens = detector(name, 0.1)
    for heatmap in lens.explain(cat, hm.Detection(0), DETECTORS[name][-1], method=["scorecam", "rise"], budget=8):
        assert heatmap.raw.isfinite().all()
        assert heatmap.raw.std() > 0


def test_queries_after_the_patches_are_no_part_of_the_grid() -> None:
    layout = hm.Layout("tokens", (2, 3), prefix=1, suffix=4)
    tokens = torch.randn(1, 11, 5)
    grid = layout.to_grid(tokens)
    assert str(layout) == "tokens 1+2x3+4"
    assert torch.equal(grid[0, :, 1, 2], tokens[0, 6])
    assert torch.equal(layout.from_grid(torch.cat([grid, grid]), tokens), torch.cat([tokens, tokens]))


def test_detectors_that_are_asked_in_words(cat: Path) -> None:
    for name, adapter in {"owlvit": TextDetector, "owlv2": TextDetector, "grounding dino": PhraseDetector}.items():
        net = model(name)
        pre = SMALL if adapter is PhraseDetector else SQUARE
        labels = ["a cat", "the dog", "a remote control"]
        lens = hm.Lens(adapter(net, Words(), least=0.0), preprocessing=pre, labels=labels)
        x, photo = pre(load(cat))[0][None], load(cat)
        with torch.no_grad():
            found = lens.engine.called(x)
        words = Words()
        if adapter is PhraseDetector:
            tokens = words(["a cat. the dog. a remote control."], max_length=32)
            with torch.no_grad():
                output = net(pixel_values=x, **tokens)
            # 1 a cat . the dog . a remote control . 39
            places = [[1, 2], [4, 5], [7, 8, 9]]
            logits = torch.stack([output.logits[..., some].amax(-1) for some in places], -1)
            assert torch.equal(found.scores, logits)
            assert (output.logits[..., 12:] == -torch.inf).all()
        else:
            tokens = words(labels, max_length=8, padding="max_length")
            with torch.no_grad():
                output = net(pixel_values=x, **tokens)
            assert torch.equal(found.scores, output.logits)
            (theirs,) = hf.OwlViTImageProcessor().post_process_object_detection(
                output, threshold=0.0, target_sizes=[(photo.height, photo.width)]
            )
            order = theirs["scores"].argsort(descending=True)
            assert [k.label for k in found.kept[0]] == theirs["labels"][order].tolist()
            assert [p.label for p in lens.predict(cat, top=1)[0]] == [labels[int(theirs["labels"][order[0]])]]
        heatmap = lens.explain(cat, hm.Detection(0))[0]
        assert heatmap.raw.isfinite().all()
        assert heatmap.raw.std() > 0
        twice = lens.engine.called(x.repeat(2, 1, 1, 1))
        assert torch.allclose(twice.scores[1], found.scores[0], atol=1e-4)
        with pytest.raises(hm.ModelError, match=r"pass labels=\['a cat', 'a remote'\]"):
            hm.Lens(adapter(net, Words()), preprocessing=pre).predict(cat)
        with pytest.raises(hm.ModelError, match=r"pass hookmap\.models\.transformers\.\w+\(model, Auto"):
            hm.Lens(net, preprocessing=pre, labels=labels).predict(cat)


# -------------------------------------------------------------------------------------------------- dense scores


# In an untrained network all evidence may speak against; raw maps hold it.
@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
@pytest.mark.parametrize("name", DENSE)
def test_dense_scores(name: str, cat: Path) -> None:
    pre = SQUARE if name.startswith(("beit", "dpt")) else SMALL
    x = pre(load(cat))[0][None]
    # A model that hasn't run yet: the library's recorders of hidden states aren't there, nothing can stand in the way.
    fresh = model(name)
    index = 0 if name.startswith(("dpt d", "depth", "glpn")) else 2

    def mean_score(output: Any) -> Tensor:
        if "predicted_depth" in output:
            return output.predicted_depth.mean()
        if "logits" in output:
            return output.logits[0, index].mean()
        classes = output.class_queries_logits.softmax(-1)[0, :, index]
        return torch.einsum("q,qhw->hw", classes, output.masks_queries_logits[0].sigmoid()).log().mean()

    layers = [DENSE[name], *RECORDED.get(name, [])]
    wanted = {layer: by_hand(fresh, layer, inputs(name, x), mean_score) for layer in layers}
    net = model(name)
    before = snapshot(net)
    lens = hm.Lens(net, preprocessing=pre)
    assert lens.engine.default_layers(x) == layers[:1]
    for target in (hm.Everywhere(of=index), hm.Box(50, 40, 300, 200, of=index), hm.Point(200, 150, of=index)):
        found = lens.explain(cat, target, method=["gradcam", slope])
        assert all(h.raw.isfinite().all() and h.raw.std() > 0 for h in found)
    # By now the recorders are there.
    for layer in layers:
        (found,) = lens.explain(cat, hm.Everywhere(of=index), layer, slope)
        expected = slope(to_grid(lens, x, layer, wanted[layer]))[0]
        assert torch.allclose(found.raw, expected, atol=1e-4 * float(expected.abs().max()))
    with torch.no_grad():
        dense = lens.engine.trace(x).reading.dense(lens.engine.called(x))
    assert dense.values.shape[:2] == (1, 1 if index == 0 else 5)
    assert unchanged(net, before)


def test_the_layer_is_one_that_the_decoder_reads() -> None:
    net = model("depth anything")
    assert DepthEstimator(net).levels == ["backbone.encoder.layer.3"]
    net.config.backbone_config.out_indices = [1, 2, 3]
    assert DepthEstimator(net).levels == ["backbone.encoder.layer.2"]
    net.config.backbone_config.model_type = "timm_backbone"
    assert DepthEstimator(net).levels == []


def test_semantic_scores_equal_the_library_s(cat: Path) -> None:
    x = SMALL(load(cat))[0][None]
    for name in ("maskformer", "mask2former", "oneformer"):
        net = model(name)
        adapter = models.describe(net).adapter
        assert isinstance(adapter, MaskSegmenter)
        with torch.no_grad():
            output, mine = net(**inputs(name, x)), adapter(x)
        (theirs,) = hf.MaskFormerImageProcessor().post_process_semantic_segmentation(
            output, return_segmentation_scores=True
        )
        assert torch.allclose(mine[0].exp(), theirs["segmentation_scores"], atol=1e-6)
        assert torch.equal(mine[0].argmax(0), theirs["segmentation"])


def test_depth(cat: Path) -> None:
    net = model("dpt depth")
    x = SQUARE(load(cat))[0][None]
    with torch.no_grad():
        depth = net(pixel_values=x).predicted_depth
        assert torch.equal(DepthEstimator(net)(x).dense[:, 0], depth)
    lens = hm.Lens(net, preprocessing=SQUARE)
    point, mean = lens.explain(cat, [hm.Point(100, 100), "predicted"])
    assert point.title == f"depth {point.score:.3g}, point (100, 100)"
    assert point.probability is None
    assert mean.score == pytest.approx(float(depth.mean()), rel=1e-5)


# -------------------------------------------------------------------------------------------------- preprocessing


EXACT = {
    "vit": hf.ViTImageProcessorPil(),
    "clip": hf.CLIPImageProcessorPil(),
    "clip, odd crop": hf.CLIPImageProcessorPil(size={"shortest_edge": 65}, crop_size={"height": 60, "width": 64}),
    "convnext": hf.ConvNextImageProcessorPil(size={"shortest_edge": 224}),
    "convnext 384": hf.ConvNextImageProcessorPil(),
    "levit": hf.LevitImageProcessorPil(),
    "poolformer": hf.PoolFormerImageProcessorPil(),
    "mobilevit": hf.MobileViTImageProcessorPil(),
    "detr": hf.DetrImageProcessorPil(),
    "detr, capped": hf.DetrImageProcessorPil(size={"shortest_edge": 400, "longest_edge": 500}),
    "detr, within": hf.DetrImageProcessorPil(size={"max_height": 300, "max_width": 350}),
    "rt-detr": hf.RTDetrImageProcessorPil(),
    "yolos": hf.YolosImageProcessorPil(size={"shortest_edge": 300, "longest_edge": 400}),
    "segformer": hf.SegformerImageProcessorPil(),
    "beit": hf.BeitImageProcessorPil(),
    "mask2former": hf.Mask2FormerImageProcessorPil(size={"shortest_edge": 200, "longest_edge": 500}),
    "maskformer": hf.MaskFormerImageProcessorPil(size={"shortest_edge": 200, "longest_edge": 280}),
    "dpt": hf.DPTImageProcessorPil(),
    "depth anything": hf.DPTImageProcessorPil(
        size={"height": 280, "width": 280}, keep_aspect_ratio=True, ensure_multiple_of=14
    ),
    "glpn": hf.GLPNImageProcessorPil(),
    "owlvit": hf.OwlViTImageProcessorPil(),
    "efficientnet": hf.EfficientNetImageProcessorPil(rescale_factor=1 / 127.5, rescale_offset=True),
    "nothing": hf.ViTImageProcessorPil(do_resize=False, do_rescale=False, do_normalize=False),
}


@pytest.mark.parametrize("name", EXACT)
def test_inputs_equal_the_image_processor_s(name: str, cat: Path) -> None:
    mine = read(EXACT[name])
    # Factors other than 1/255 are folded into mean and standard deviation, in another order.
    folded = name in ("efficientnet", "nothing")
    torchvision_s = getattr(hf, type(EXACT[name]).__name__.removesuffix("Pil"))
    fast = torchvision_s(**{k: v for k, v in EXACT[name].to_dict().items() if "type" not in k})
    for photo in photos(cat):
        x, geometry = mine(load(photo))
        theirs = EXACT[name](images=photo, return_tensors="pt")["pixel_values"][0].float()
        assert x.shape == theirs.shape
        assert geometry.input == tuple(x.shape[1:])
        assert torch.allclose(x, theirs, atol=1e-4 if folded else 2e-6, rtol=1e-6)
        # The library's other backend resizes by itself: it differs by roundings of a grey level, seldom by more.
        other = fast(images=photo, return_tensors="pt")["pixel_values"][0].float()
        levels = (x - other).abs() * torch.tensor(mine.std)[:, None, None] * 255
        assert levels.mean() < 0.6
        assert levels.max() < 12


def test_owlv2_squares_the_picture(cat: Path) -> None:
    processor = hf.Owlv2ImageProcessor(size={"height": 240, "width": 240})
    for photo in photos(cat):
        x, geometry = read(processor)(load(photo))
        theirs = processor(images=photo, return_tensors="pt")["pixel_values"][0]
        # It blurs before it resizes, with a Gaussian.
        assert ((x - theirs).abs() * 0.27).mean() < 0.02
        assert geometry.scale == (240 / max(photo.shape), 240 / max(photo.shape))


def test_processors_that_do_something_else_are_not_read() -> None:
    assert read(hf.PerceiverImageProcessor()) is None
    assert read(hf.DetrImageProcessor(pad_size={"height": 1400, "width": 1400})) is None


@pytest.mark.parametrize("name", ["clip", "detr, capped", "yolos", "mask2former", "depth anything", "mobilevit"])
def test_a_bright_square_stays_where_it_is(name: str) -> None:
    photo = np.zeros((300, 420, 3), np.uint8)
    photo[90:140, 250:300] = 255
    pre = read(EXACT[name])
    x, geometry = pre(load(photo))
    back = geometry.lay_back((x.mean(0) - x.mean(0).amin())[None])[0]
    ys, xs = torch.meshgrid(torch.arange(300) + 0.5, torch.arange(420) + 0.5, indexing="ij")
    centre = float((back * ys).sum() / back.sum()), float((back * xs).sum() / back.sum())
    assert centre == pytest.approx((115, 275), abs=0.6)
    corners = geometry.to_original(geometry.to_input(torch.tensor([[250.0, 90.0], [300.0, 140.0]])))
    assert torch.allclose(corners, torch.tensor([[250.0, 90.0], [300.0, 140.0]]), atol=1e-3)
    shown = pre.undo(x)
    assert shown.shape == (*x.shape[1:], 3)
    assert shown.max() == 255


def test_a_heatmap_lies_where_the_square_is() -> None:
    photo = np.zeros((300, 420, 3), np.uint8)
    photo[96:144, 240:288] = 255
    net = model("yolos")
    projection = net.vit.embeddings.patch_embeddings.projection
    nn.init.constant_(projection.weight, 1 / projection.weight[0].numel())

    def brightness(activation: Tensor) -> Tensor:
        return activation.mean(1) - activation.mean(1).amin()

    lens = hm.Lens(QueryDetector(net, least=0.0), preprocessing=read(EXACT["yolos"]))
    layer = "vit.embeddings.patch_embeddings.projection"
    (found,) = lens.explain(photo, hm.Detection(0), layer, brightness)
    ys, xs = torch.meshgrid(torch.arange(300) + 0.5, torch.arange(420) + 0.5, indexing="ij")
    centre = float((found.map * ys).sum() / found.map.sum()), float((found.map * xs).sum() / found.map.sum())
    assert centre == pytest.approx((120, 264), abs=1)


# -------------------------------------------------------------------------------------------------- by name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = {0: "cat", 1: "dog", 2: "car", 3: "cup"}
    net = hf.DetrForObjectDetection(hf.DetrConfig(backbone_config=resnet(), **DETR, id2label=labels))
    net.save_pretrained(tmp_path / "detr")
    hf.DetrImageProcessor(size={"shortest_edge": 90, "longest_edge": 130}).save_pretrained(tmp_path / "detr")
    return tmp_path / "detr"


def test_a_folder_brings_weights_labels_and_preprocessing(folder: Path, cat: Path) -> None:
    lens = hm.Lens(str(folder), device="cpu")
    assert isinstance(lens.engine.called, QueryDetector)
    assert list(lens.labels) == ["cat", "dog", "car", "cup"]
    assert not lens.model.training
    plain = hf.DetrForObjectDetection.from_pretrained(folder)
    for key, value in plain.state_dict().items():
        assert torch.equal(lens.model.state_dict()[key], value)
    theirs = hf.AutoImageProcessor.from_pretrained(folder)(images=Image.open(cat), return_tensors="pt")
    assert lens.preprocessing(load(cat))[0].shape == theirs["pixel_values"].shape[1:]
    assert models.load(f"hf/{folder}", pretrained=False).note.endswith("nothing about a trained network")
    # A module that was loaded by hand knows where it came from.
    assert models.describe(plain).note is None


def test_checkpoints_go_with_a_configuration(folder: Path, tmp_path: Path) -> None:
    plain = hf.DetrForObjectDetection.from_pretrained(folder)
    torch.save(plain.state_dict(), tmp_path / "mine.pt")
    # Names on disk aren't those in memory.
    for weights in (folder / "model.safetensors", tmp_path / "mine.pt"):
        loaded = models.load(str(folder), weights=weights)
        for key, value in plain.state_dict().items():
            assert torch.equal(loaded.model.state_dict()[key], value)
    torch.save(hf.ViTForImageClassification(hf.ViTConfig(**VIT)).state_dict(), tmp_path / "other.pt")
    with pytest.raises(hm.ModelError, match=r"other.pt doesn't fit DetrForObjectDetection and looks like another arch"):
        models.load(str(folder), weights=tmp_path / "other.pt")


def test_what_a_module_that_was_built_by_hand_brings(cat: Path) -> None:
    known = models.describe(hf.ViTForImageClassification(hf.ViTConfig(**VIT, num_labels=3)))
    assert known.labels is None
    assert known.preprocessing.size == known.preprocessing.resize == (64, 64)
    assert "usual way of a ViTImageProcessor" in known.note

    class Mine(hf.ViTForImageClassification):
        pass

    lens = hm.Lens(Mine(hf.ViTConfig(**VIT, id2label={0: "cat", 1: "dog"})))
    with pytest.warns(hm.HookmapWarning, match="Mine comes without an image processor"):
        assert {p.label for p in lens.predict(cat)[0]} == {"cat", "dog"}
    wrapped = hf.TimmWrapperForImageClassification(hf.TimmWrapperConfig(architecture="resnet10t", num_labels=4))
    assert models.describe(wrapped).preprocessing.size == (176, 176)
    assert len(hm.Lens(wrapped).predict(cat)[0]) == 4


def test_names_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookmap.models.timm.getproxies", dict)
    monkeypatch.setattr("hookmap.models.timm.socket.getaddrinfo", offline)
    with pytest.raises(hm.ModelError, match=r"no configuration of 'hf/nobody/nothing' could be loaded \(.+\); exp"):
        models.load("hf/nobody/nothing")
    with pytest.raises(hm.ModelError, match="no configuration of 'nobody/nothing'"):
        models.load("nobody/nothing")
    config = {"model_type": "vit", "architectures": ["TheirViT"], "auto_map": {"AutoModel": "code.TheirViT"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(hm.ModelError, match="is a TheirViT, which isn't one of transformers' own classes, and hookm"):
        models.load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["ViTForImageClassification"]}))
    with pytest.raises(hm.ModelError, match="pretrained weights of .* couldn't be loaded"):
        models.load(str(tmp_path))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(hm.MissingLibraryError, match=r"pip install 'hookmap\[transformers\]'"):
        models.load("hf/google/vit-base-patch16-224")


def offline(*_: object, **__: object) -> None:
    raise OSError("no network")
