"""RF-DETR, LW-DETR, OmDet-Turbo and PP-OCR of transformers: read and preprocessed as the library itself does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor, nn

import hookmap as hm
from hookmap import models
from hookmap.adapters.outputs import Kept
from hookmap.images.loading import load
from hookmap.models.transformers.detectors import OpenDetector, QueryDetector, without_doubles
from hookmap.models.transformers.processing import read
from library_models import SMALL, by_hand, photos, slope, snapshot, to_grid, unchanged
from networks import stirred
from tiny_transformers import model

LEVELS = {
    "rf-detr": ["model.backbone.projector"],
    "rf-detr segmenter": ["model.model.backbone.projector"],
    "lw-detr": [f"model.backbone.projector.scale_layers.{i}" for i in range(2)],
}
PROCESSORS: dict[str, type[Any]] = {
    "rf-detr": hf.RfDetrImageProcessor,
    "rf-detr segmenter": hf.RfDetrImageProcessor,
    "lw-detr": hf.DeformableDetrImageProcessor,
}
LABELS = ["a cat", "the dog"]
LEAST = 0.2


def tokenizer() -> hf.CLIPTokenizer:
    """CLIP's, for letter by letter."""
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return hf.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])


def detector(name: str, least: float) -> hm.Lens:
    net = model(name)
    if name == "lw-detr":
        nn.init.zeros_(net.class_embed.bias)  # nothing is improbable from the start
    adapter = models.describe(net).adapter
    assert isinstance(adapter, QueryDetector)
    adapter.least = least
    return hm.Lens(adapter, preprocessing=SMALL, labels=["cat", "dog", "car", "cup"])


def open_lens(least: float) -> hm.Lens:
    preprocessing = hm.Preprocessing(size=(128, 128), resize=(128, 128))
    return hm.Lens(
        OpenDetector(model("omdet-turbo"), tokenizer(), least=least), preprocessing=preprocessing, labels=LABELS
    )


def same(mine: list[Any], theirs: dict[str, Tensor], photo: Any) -> None:
    """Whether predictions are the library's detections, in their order."""
    order = theirs["scores"].argsort(descending=True, stable=True)
    assert len(mine) == len(order) > 1
    assert torch.allclose(torch.tensor([p.probability for p in mine]), theirs["scores"][order], atol=1e-5)
    assert [p.index for p in mine] == theirs["labels"][order].tolist()
    boxes = theirs["boxes"][order].clamp(min=0)
    boxes = torch.minimum(boxes, torch.tensor([photo.width, photo.height] * 2))
    assert torch.allclose(torch.tensor([p.box for p in mine]), boxes.float(), atol=1e-2)


@pytest.mark.parametrize("name", ["rf-detr", "lw-detr"])
def test_detections_equal_the_library_s(name: str, cat: Path) -> None:
    lens, photo = detector(name, LEAST), load(cat)
    with torch.no_grad():
        output = lens.model(pixel_values=SMALL(photo)[0][None])
    processor = PROCESSORS[name]()
    (theirs,) = processor.post_process_object_detection(output, LEAST, [(photo.height, photo.width)])
    same(lens.predict(cat, top=100)[0], theirs, photo)


@pytest.mark.filterwarnings("ignore:the heatmap of .* by drise is noisy:hookmap.HookmapWarning")
@pytest.mark.parametrize("name", LEVELS)
def test_a_detection_s_gradient_is_that_of_its_raw_logit(name: str, cat: Path) -> None:
    lens = detector(name, 0.05)
    net, x = lens.model, SMALL(load(cat))[0][None]
    before = snapshot(net)
    assert lens.engine.default_layers(x) == LEVELS[name]
    with torch.no_grad():
        found = lens.engine.called(x)
    # Queries start where the encoder proposes: in another picture a row is another candidate.
    assert not found.fixed
    row, label = found.kept[0][1]
    for layer in LEVELS[name]:
        (heatmap,) = lens.explain(x, hm.Detection(1), layer=layer, method=slope)
        gradient = by_hand(net, layer, {"pixel_values": x}, lambda output: output.logits[0, row, label])
        wanted = slope(to_grid(lens, x, layer, gradient))[0]
        assert torch.allclose(heatmap.raw, wanted, atol=1e-4 * float(wanted.abs().max()))
        assert wanted.abs().max() > 0
    (heatmap,) = lens.explain(cat, hm.Detection(1))
    assert heatmap.raw.isfinite().all()
    assert heatmap.raw.std() > 0
    assert lens.explain(cat, hm.Detection(1), method="drise", budget=10)[0].raw.std() > 0
    assert unchanged(net, before)


def test_a_mask_is_the_library_s_and_so_is_its_gradient(cat: Path) -> None:
    lens, photo = detector("rf-detr segmenter", LEAST), load(cat)
    net, x = lens.model, SMALL(photo)[0][None]
    with torch.no_grad():
        output, found = net(pixel_values=x), lens.engine.called(x)
    (theirs,) = hf.RfDetrImageProcessor().post_process_instance_segmentation(
        output, LEAST, target_sizes=[found.masks[0].shape[1:]], return_binary_maps=True
    )
    shown = [mask > 0 for mask in found.masks[0] if (mask > 0).any()]
    assert torch.equal(torch.stack(shown), theirs["segmentation"])
    for prediction, one in zip(lens.predict(cat, top=100)[0], found.kept[0], strict=True):
        assert prediction.probability == pytest.approx(float(output.logits[0, one.row, one.label].sigmoid()), abs=1e-5)
    number = next(n for n, mask in enumerate(found.masks[0]) if (mask > 0).any())
    row, (layer,) = found.kept[0][number].row, LEVELS["rf-detr segmenter"]
    area = output.pred_masks[0, row] > 0
    (heatmap,) = lens.explain(x, f"box:{number}:mask", method=slope)
    gradient = by_hand(net, layer, {"pixel_values": x}, lambda output: output.pred_masks[0, row][area].mean())
    wanted = slope(gradient)[0]
    assert torch.allclose(heatmap.raw, wanted, atol=1e-4 * float(wanted.abs().max()))


# -------------------------------------------------------------------------------------------------- asked in words


@pytest.mark.parametrize("least", [0.4, 0.01])
def test_omdet_s_detections_equal_the_library_s(least: float, cat: Path) -> None:
    lens, photo = open_lens(least), load(cat)
    net = lens.model
    for head in net.decoder.decoder_bbox_head:  # boxes so large that some are doubles
        head.layers[-1].bias.data[2:] += 2
    before = snapshot(net)
    mine = lens.predict(cat, top=100)[0]
    # Nothing is left in what the model remembers of texts.
    assert not net.language_cache_class.cache
    assert not net.language_cache_prompt.cache
    assert unchanged(net, before)
    processor = hf.OmDetTurboProcessor(hf.DetrImageProcessor(size={"height": 128, "width": 128}), tokenizer())
    given = processor(images=Image.open(cat), text=LABELS, return_tensors="pt")
    del given["pixel_mask"]
    given["pixel_values"] = lens.preprocessing(photo)[0][None]
    with torch.no_grad():
        output = net(**given)
    (theirs,) = processor.post_process_grounded_object_detection(
        output, [LABELS], threshold=least, target_sizes=[(photo.height, photo.width)]
    )
    assert (output.decoder_class_logits.sigmoid() > least).sum() > len(mine)
    same(mine, theirs, photo)


def test_omdet_s_gradient_after_the_model_ran_in_inference_mode(cat: Path) -> None:
    lens = open_lens(0.0)
    net, x = lens.model, lens.preprocessing(load(cat))[0][None]
    processor = hf.OmDetTurboProcessor(hf.DetrImageProcessor(size={"height": 128, "width": 128}), tokenizer())
    given = dict(processor(images=Image.open(cat), text=LABELS, return_tensors="pt"))
    given |= {"pixel_values": x}
    del given["pixel_mask"]
    with torch.inference_mode():
        net(**given)
    with torch.no_grad():
        found = lens.engine.called(x)
        assert torch.allclose(lens.engine.called(x.repeat(2, 1, 1, 1)).scores[1], found.scores[0], atol=1e-4)
    row, label = found.kept[0][1]
    layers = ["encoder.fpn_blocks.1", "encoder.pan_blocks.0", "encoder.pan_blocks.1"]
    assert lens.engine.default_layers(x) == layers
    kept = {key: value.clone() for key, value in net.language_cache_class.cache.items()}
    found_maps = [lens.explain(x, hm.Detection(1), layer=layer, method=slope)[0].raw for layer in layers]
    assert net.language_cache_class.cache.keys() == kept.keys()
    for cache in (net.language_cache_class, net.language_cache_prompt):
        cache.cache.clear()
    for layer, raw in zip(layers, found_maps, strict=True):
        gradient = by_hand(net, layer, given, lambda output: output.decoder_class_logits[0, row, label])
        wanted = slope(gradient)[0]
        assert torch.allclose(raw, wanted, atol=1e-4 * float(wanted.abs().max()))
        assert wanted.abs().max() > 0


def test_omdet_says_what_it_needs(cat: Path) -> None:
    net = model("omdet-turbo")
    assert isinstance(models.describe(net).adapter, OpenDetector)
    with pytest.raises(hm.ModelError, match=r"pass labels=\['a cat', 'a remote'\]"):
        hm.Lens(net, preprocessing=SMALL).predict(cat)
    with pytest.raises(hm.ModelError, match=r"pass hookmap\.models\.transformers\.OpenDetector\(model, Auto"):
        hm.Lens(net, preprocessing=SMALL, labels=LABELS).predict(cat)


def test_doubles_of_one_class_are_left_out() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])
    sure = torch.tensor([[0.9, 0.3], [0.8, 0.6], [0.2, 0.1]])
    kept = [Kept(0, 0), Kept(1, 0), Kept(1, 1), Kept(2, 0)]
    assert without_doubles(kept, boxes, sure) == [Kept(0, 0), Kept(1, 1), Kept(2, 0)]
    assert without_doubles(kept, boxes, sure, overlap=0.85) == kept
    assert without_doubles([], boxes, sure) == []


# -------------------------------------------------------------------------------------------------- preprocessing


def test_inputs_equal_rf_detr_s_image_processor(cat: Path) -> None:
    for size in ({"height": 160, "width": 160}, {"shortest_edge": 100, "longest_edge": 180}):
        processor = hf.RfDetrImageProcessor(size=size)
        for photo in photos(cat):
            x, geometry = read(processor)(load(photo))
            theirs = processor(images=photo, return_tensors="pt")["pixel_values"][0]
            assert x.shape == theirs.shape
            assert torch.allclose(x, theirs, atol=1e-5)
            assert geometry.scale == (x.shape[1] / photo.shape[0], x.shape[2] / photo.shape[1])


@pytest.mark.parametrize(("name", "side"), [("rf-detr", 64), ("lw-detr", 640), ("omdet-turbo", 640)])
def test_without_a_processor_a_square_is_assumed_that_the_windows_fit_into(name: str, side: int) -> None:
    known = models.describe(model(name))
    assert known.preprocessing.size == (side, side)
    assert "comes without an image processor" in known.note
    assert known.labels is None


def test_rf_detr_is_loaded_from_a_folder(tmp_path: Path, cat: Path) -> None:
    net = model("rf-detr")
    net.config.id2label = {0: "cat", 1: "dog", 2: "car", 3: "cup"}
    net.save_pretrained(tmp_path)
    hf.RfDetrImageProcessor(size={"height": 96, "width": 96}).save_pretrained(tmp_path)
    lens = hm.Lens(str(tmp_path), device="cpu")
    assert isinstance(lens.engine.called, QueryDetector)
    assert list(lens.labels) == ["cat", "dog", "car", "cup"]
    theirs = hf.AutoImageProcessor.from_pretrained(tmp_path)(images=Image.open(cat), return_tensors="pt")
    assert torch.allclose(lens.preprocessing(load(cat))[0], theirs["pixel_values"][0], atol=1e-5)
    assert not any(np.isnan(p.probability) for p in lens.predict(cat)[0])
    assert all(isinstance(m, nn.Module) and not m.training for m in lens.model.modules())


# -------------------------------------------------------------------------------------------------- text


def test_pp_ocr_scores_places(cat: Path) -> None:
    torch.manual_seed(0)
    net = stirred(hf.PPOCRV5MobileDetForObjectDetection(hf.PPOCRV5MobileDetConfig()))
    net.head.conv_final.weight.data.mul_(100)
    before = snapshot(net)
    lens = hm.Lens(net, preprocessing=SMALL)
    x = SMALL(load(cat))[0][None]
    (layer,) = lens.engine.default_layers(x)
    assert list(lens.labels) == ["text"]
    logits: list[Tensor] = []
    with net.head.conv_final.register_forward_hook(lambda _, __, output: logits.append(output)):
        with torch.no_grad():
            scores = lens.engine.called(x)
        assert torch.allclose(scores, logits[0], atol=1e-3)
        gradient = by_hand(net, layer, {"pixel_values": x}, lambda _: logits[-1].mean())
    (heatmap,) = lens.explain(cat, hm.Everywhere(of="text"), method=slope)
    wanted = slope(gradient)[0]
    assert torch.allclose(heatmap.raw, wanted, atol=1e-3 * float(wanted.abs().max()))
    assert wanted.abs().max() > 0
    assert unchanged(net, before)


def test_inputs_equal_pp_ocr_s_image_processor(cat: Path) -> None:
    for processor in (hf.PPOCRV5ServerDetImageProcessor(), hf.PPOCRV5ServerDetImageProcessor(limit_side_len=256)):
        steps = read(processor)
        for photo in photos(cat):
            x, _ = steps(load(photo))
            theirs = processor(images=photo, return_tensors="pt")["pixel_values"][0]
            assert x.shape == theirs.shape
            # It doesn't round between resizing and normalising.
            assert ((x - theirs).abs() * torch.tensor(steps.std)[:, None, None] * 255).max() < 1.5
