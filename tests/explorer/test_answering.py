"""What the explorer answers is what the library says, and what it says to type gives the same again."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import hookmap as hm
from hookmap.attribution.muting import muted
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import (
    Concepts,
    Erase,
    Explain,
    Features,
    Missed,
    Muting,
    Patch,
    Predict,
    Question,
    Stages,
    Stroke,
)
from hookmap.explorer.wire import Answer, packed
from networks import stirred
from pictures import PHOTOS

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
CAT = PHOTOS / "cat.jpg"


@pytest.fixture(scope="module")
def lens() -> hm.Lens:
    return hm.Lens()


@pytest.fixture(scope="module")
def explorer(lens: hm.Lens) -> Explorer:
    return Explorer({"lite": lens.engine}, [CAT])


def asked(explorer: Explorer, kind: type[Question], **about: Any) -> Answer:
    id = next(iter(explorer.models())).id
    return explorer.answer(kind(model=id, picture=explorer.samples()[0].id, **about))


def test_the_models_say_what_can_be_asked(explorer: Explorer, lens: hm.Lens) -> None:
    (about,) = explorer.models()
    assert (about.form, about.method, about.layers, len(about.labels)) == ("classes", "gradcam", ("bn2",), 1000)
    names = {method.name for method in about.methods}
    assert {"gradcam", "layercam", "ablationcam", "integratedgradients"} <= names
    assert not {"gcame", "chefer", "attention"} & names  # it neither detects nor attends


def test_a_sample_that_cannot_be_read_is_left_out_and_said(lens: hm.Lens, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.warns(hm.HookmapWarning, match=r"broken\.jpg is left out: .*(read|image)"):
        opened = Explorer({"lite": lens.engine}, [tmp_path / "broken.jpg", CAT, tmp_path / "gone.jpg"])
    assert [sample.name for sample in opened.samples()] == ["cat.jpg"]


def test_predictions_and_heatmaps_are_the_lens_own(explorer: Explorer, lens: hm.Lens) -> None:
    predicted, truth = asked(explorer, Predict, top=3).about, lens.predict(CAT, top=3)[0]
    assert [one.label for one in predicted.predictions] == [one.label for one in truth]
    assert [one.probability for one in predicted.predictions] == pytest.approx([one.probability for one in truth])
    for about in ({}, {"target": "281"}, {"target": "tabby", "versus": "Egyptian cat"}, {"method": "layercam"}):
        answer = asked(explorer, Explain, **about)
        (drawn,) = answer.about.heatmaps
        target: Any = about.get("target", "predicted")
        target = hm.Contrast(target, about["versus"]) if "versus" in about else target
        truth_ = lens.explain(CAT, target, method=about.get("method"))[0]
        torch.testing.assert_close(answer.arrays[drawn.array], truth_.raw, rtol=1e-4, atol=1e-6)
        assert (drawn.title, drawn.method, drawn.layer) == (truth_.title, truth_.method.name, truth_.layer)
        assert hm.Look.from_json(drawn.look) == hm.Look.from_json(truth_.look.as_json())


def test_the_lines_and_the_command_that_are_shown_give_the_same_map(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hookmap.cli import main

    (tmp_path / "cat.jpg").write_bytes(CAT.read_bytes())
    monkeypatch.chdir(tmp_path)
    about = {"target": "281", "versus": "282", "method": "hirescam", "layer": "blocks.5", "part": "signed"}
    answer = asked(explorer, Explain, **about)
    (drawn,) = answer.about.heatmaps
    names: dict[str, Any] = {}
    exec(drawn.python, names)
    torch.testing.assert_close(names["heatmaps"][0].raw, answer.arrays[drawn.array], rtol=1e-4, atol=1e-6)
    import shlex

    words = shlex.split(drawn.command)
    assert words[0] == "hookmap"
    monkeypatch.setattr("sys.argv", [*words, "-o", "out.npz"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    read = hm.load("out.npz")[0]
    torch.testing.assert_close(read.raw, answer.arrays[drawn.array], rtol=1e-4, atol=1e-6)
    assert read.look.part == "signed"


def test_muted_lines_give_the_muted_map(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PHOTOS)
    muting = Muting("blocks.5", (3, 40), 0.5)
    answer = asked(explorer, Explain, muted=(muting,), target="281")
    (drawn,) = answer.about.heatmaps
    names: dict[str, Any] = {}
    exec(drawn.python, names)
    torch.testing.assert_close(names["heatmaps"][0].raw, answer.arrays[drawn.array], rtol=1e-4, atol=1e-6)
    assert drawn.command == ""
    plain = asked(explorer, Explain, target="281")
    assert not torch.allclose(plain.arrays["map.0"], answer.arrays["map.0"], rtol=1e-4, atol=1e-6)


def test_stages_and_channels_are_the_layers_own(explorer: Explorer, lens: hm.Lens) -> None:
    staged = asked(explorer, Stages)
    assert [stage.layer for stage in staged.about.stages][:2] == ["bn1", "blocks.0"]
    assert [stage.layer for stage in staged.about.stages if stage.default] == ["bn2"]
    assert {stage.layer for stage in staged.about.stages} <= set(staged.about.layers)
    truth = lens.features(CAT, "blocks.3", target=281)["blocks.3"]
    stage = next(stage for stage in staged.about.stages if stage.layer == "blocks.3")
    torch.testing.assert_close(staged.arrays[stage.array], truth.reduce("mean")[0], rtol=1e-4, atol=1e-5)
    channels = asked(explorer, Features, layer="blocks.3", target="281")
    torch.testing.assert_close(channels.arrays["maps"].float(), truth.maps[0], rtol=2e-3, atol=2e-3)
    numbers = channels.about.numbers
    for ranking in ("mean", "variance", "influence"):
        mine = [numbers[place] for place in channels.about.orders[ranking][:8]]
        assert mine == truth.select(ranking, top=8)  # type: ignore[arg-type]


def test_a_patch_says_where_it_is_and_what_is_like_it(explorer: Explorer, lens: hm.Lens) -> None:
    point = (220.0, 130.0)
    answer = asked(explorer, Patch, layer="blocks.4", x=point[0], y=point[1])
    about = answer.about
    left, top, right, bottom = about.patch
    assert left <= point[0] <= right
    assert top <= point[1] <= bottom
    assert about.field is not None
    assert about.field[0] <= left
    assert about.field[3] >= bottom
    truth = lens.similar_patches(CAT, point, "blocks.4")[0]
    torch.testing.assert_close(answer.arrays["alike"], truth.raw, rtol=1e-4, atol=1e-5)
    maps = lens.features(CAT, "blocks.4")["blocks.4"].maps[0]
    best = about.channels[0]
    assert best.value == pytest.approx(float(maps[best.number][about.cell]), rel=1e-3, abs=1e-4)
    assert about.heads == ()


def test_a_patch_of_a_transformer_says_where_its_heads_look() -> None:
    torch.manual_seed(0)
    model = stirred(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5)).eval()
    lens = hm.Lens(model)
    explorer = Explorer({"vit": lens.engine}, [CAT])
    answer = asked(explorer, Patch, layer="blocks.1", x=220, y=130)
    truth = lens.attention(CAT, "blocks.1", at=(220, 130))["blocks.1.attn"]
    assert len(answer.about.heads) == 3
    before = asked(explorer, Patch, layer="blocks.1.norm1", x=220, y=130)  # what the attention reads
    torch.testing.assert_close(before.arrays["head.2"], answer.arrays["head.2"])
    torch.testing.assert_close(torch.stack([answer.arrays[name] for name in answer.about.heads]), truth)
    assert "chefer" in {method.name for method in explorer.models()[0].methods}


def test_what_is_erased_is_another_picture(explorer: Explorer) -> None:
    sample = explorer.samples()[0]
    strokes = (Stroke(((100.0, 100.0), (150.0, 100.0)), 30.0),)
    for fill in ("blur", "mean", "linear"):
        erased = explorer.erase(Erase(picture=sample.id, strokes=strokes, fill=fill))  # type: ignore[arg-type]
        assert erased.id != sample.id
        assert (erased.width, erased.height) == (sample.width, sample.height)
        before = np.asarray(Image.open(CAT).convert("RGB")).astype(int)
        after = explorer.picture(erased.id).pixels.astype(int)
        changed = np.abs(after - before).max(-1) > 0
        assert changed[90:111, 100:150].mean() > 0.9
        assert not changed[:60].any()
        assert not changed[:, 200:].any()
    with pytest.raises(hm.HookmapError, match="nothing was brushed"):
        explorer.erase(Erase(picture=sample.id, strokes=()))


def test_a_detector_says_what_it_missed() -> None:
    torch.manual_seed(1)
    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    model.score_thresh = 0.02
    lens = hm.Lens(model, preprocessing=hm.Preprocessing(size=(128, 128), resize=(128, 128)))
    explorer = Explorer({"detector": lens.engine}, [CAT])
    predicted = asked(explorer, Predict).about.predictions
    if predicted:
        answer = asked(explorer, Explain, target=predicted[0].target)
        assert answer.about.heatmaps[0].box == pytest.approx(predicted[0].box)
    missing = asked(explorer, Missed, box=(50.0, 50.0, 200.0, 200.0)).about
    truth = lens.missed(CAT, (50.0, 50.0, 200.0, 200.0))
    assert (missing.died, missing.sentence) == (truth.died, str(truth))
    assert missing.candidate is not None
    assert asked(explorer, Explain, target=missing.candidate.target).about.heatmaps


def test_the_same_question_has_the_same_key_and_another_another(explorer: Explorer) -> None:
    id = explorer.samples()[0].id
    one = explorer.key(Explain(model="lite", picture=id))
    assert one == explorer.key(Explain(model="lite", picture=id))
    others = [Explain(model="lite", picture=id, target="3"), Predict(model="lite", picture=id)]
    assert len({one, *(explorer.key(other) for other in others)}) == 3


@pytest.mark.parametrize(
    ("kind", "about", "words"),
    [
        (Explain, {"target": "no such thing"}, "no such thing"),
        (Explain, {"layer": "nowhere"}, "nowhere"),
        (Explain, {"method": "gradcamm"}, "gradcamm"),
        (Features, {"layer": "classifier"}, "rows and columns"),
        (Patch, {"layer": "blocks.4", "x": -9.0, "y": 3.0}, "outside"),
        (Missed, {"box": (0.0, 0.0, 9.0, 9.0)}, "detects no objects"),
    ],
)
def test_what_cant_be_answered_is_said(
    explorer: Explorer, kind: type[Question], about: dict[str, Any], words: str
) -> None:
    with pytest.raises(hm.HookmapError, match=words):
        asked(explorer, kind, **about)


def test_pictures_and_models_that_arent_there_are_said(explorer: Explorer) -> None:
    with pytest.raises(hm.HookmapError, match="there's no model 'nobody'"):
        explorer.answer(Predict(model="nobody", picture=explorer.samples()[0].id))
    with pytest.raises(hm.ImageError, match="open it again"):
        explorer.answer(Predict(model="lite", picture="0" * 32))
    with pytest.raises(hm.ImageError):
        explorer.add(b"no picture", "x.jpg")


def test_an_answer_is_packed_with_finite_json(explorer: Explorer) -> None:
    answer = asked(explorer, Explain)
    data = packed(answer)
    (length,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + length])
    about = json.loads(head["__metadata__"]["answer"])
    assert about["heatmaps"][0]["method"] == "gradcam"
    start, end = head["map.0"]["data_offsets"]
    values = np.frombuffer(data[8 + length :][start:end], np.float32).reshape(head["map.0"]["shape"])
    np.testing.assert_array_equal(values, answer.arrays["map.0"].numpy())


@pytest.mark.parametrize("form", ["png", "svg", "pdf", "npz"])
def test_a_view_is_taken_away_as_a_file(explorer: Explorer, form: Any, tmp_path: Path) -> None:
    id = explorer.samples()[0].id
    data, _, name = explorer.export(Explain(model="lite", picture=id), form)
    assert name == f"cat_gradcam.{form}"
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "npz": b"PK"}
    assert data.startswith(starts[form])


def test_a_model_whose_input_isnt_known_is_asked_with_pictures_of_its_size() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    explorer = Explorer({"net": hm.Lens(net).engine}, [CAT])
    assert explorer.models()[0].form == "other"
    with pytest.raises(hm.ModelError, match="preprocessed"):
        asked(explorer, Predict)


def test_a_muted_concept_is_one_of_the_picture_and_the_lines_say_how(lens: hm.Lens, cat: Path) -> None:
    explorer = Explorer({"net": lens.engine}, [cat])
    base = {"model": "net", "picture": explorer.samples()[0].id}
    mutings = (Muting("blocks.5", (1,), 0.25, "concepts"), Muting("blocks.4", (3,)))
    told = explorer.answer(Concepts(**base, muted=mutings, layer="blocks.5"))
    concepts = lens.concepts(cat, "blocks.5")
    assert [one.labels for one in told.about.concepts] == [tuple(one.labels) for one in concepts]
    torch.testing.assert_close(told.arrays["maps"], concepts.memberships[0])
    with lens.muted(concepts, [1], factor=0.25), lens.muted("blocks.4", [3]):
        expected = lens.explain(cat, "tabby")[0]
    answer = explorer.answer(Explain(**base, muted=mutings, target="tabby"))
    torch.testing.assert_close(answer.arrays["map.0"], expected.raw)
    assert answer.about.heatmaps[0].score == pytest.approx(expected.score, abs=1e-5)
    names: dict[str, Any] = {}
    exec(answer.about.heatmaps[0].python.replace("'cat'", repr(str(cat))).replace("'cat.jpg'", repr(str(cat))), names)
    torch.testing.assert_close(names["heatmaps"][0].raw, expected.raw)
    with pytest.raises(hm.LayerError, match="'blocks.5' has concepts 0 to 4; 9 doesn't exist"):
        explorer.answer(Predict(**base, muted=(Muting("blocks.5", (9,), 0, "concepts"),)))
    alone = muted(lens.engine, lens.engine.example(), [mutings[0]])
    with pytest.raises(hm.LayerError, match="concepts are those of an opened image"), alone:
        pass
