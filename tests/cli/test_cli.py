"""The command line, run for real; every bad input ends in one sentence."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import hookmap as hm
from pictures import bomb


def test_explain_in_one_word(hookmap, cat: Path, tmp_path: Path) -> None:
    result = hookmap("explain", cat)
    assert result.code == 0
    assert "tiger cat 39%" in result.out
    with Image.open(tmp_path / "cat_gradcam.png") as image:
        assert image.size == (451, 300)


def test_several_images_targets_and_layers(hookmap, cat: Path, coffee: Path, tmp_path: Path) -> None:
    result = hookmap("explain", cat, coffee, "-t", "espresso", "-t", "281", "-l", "blocks.5", "-o", "maps")
    assert result.code == 0
    assert "espresso 95%" in result.out
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["cat_gradcam.png", "coffee_gradcam.png"]


def test_a_model_whose_weights_are_no_numbers_predicts_nothing(hookmap, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import torch\n\n\ndef build():\n    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), "
        "torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n"
        "    torch.nn.init.constant_(net[0].weight, float('nan'))\n    return net\n"
    )
    result = hookmap("predict", cat, "-m", "broken.py:build", "--size", "32")
    assert result.code == 1
    assert "nan" not in result.out
    assert "cat: the model's scores aren't numbers: its weights, or the input, hold NaN" in " ".join(result.err.split())


DETECTOR = """
import torch
import hookmap as hm


class Bright(hm.Adapter):
    preprocessing = hm.Preprocessing(size=(64, 64), resize=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
    labels = ["bright", "dark"]

    def forward(self, x):
        at = torch.arange(4.0) * 16
        corner = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).reshape(1, 16, 2).expand(len(x), -1, -1)
        light = self.plain(x).flatten(2).mT
        scores = torch.cat([light, -light], 2) * 20
        boxes = torch.cat([corner, corner + 16], 2)
        return hm.Detections(scores, boxes, scores.sigmoid(), hm.keep_best(boxes, scores.sigmoid(), least=0.9, most=2))


def build():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Conv2d(4, 1, 4, 4))
    with torch.no_grad():
        for layer in net:
            layer.weight.fill_(1 / layer.weight[0].numel())
            layer.bias.zero_()
        net[1].bias.fill_(-0.25)
    return Bright(net)
"""


def test_every_detection_on_a_sheet_and_in_files_of_their_own(hookmap, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "detector.py").write_text(DETECTOR)
    Image.new("RGB", (64, 64), (63, 63, 63)).save(tmp_path / "grey.png")
    result = hookmap("explain", cat, "grey.png", "-m", "detector.py:build", "-o", "maps", "--each")
    assert result.code == 1
    assert re.search(r"bright \d+%, box 0, bright \d+%, box 1", result.out)
    assert "grey: nothing was detected in the picture: the best candidates are dark 51%" in " ".join(result.err.split())
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == ["cat_odam.png", "cat_odam_0.png", "cat_odam_1.png"]
    assert hookmap("explain", cat, "-m", "detector.py:build", "-t", "box:1", "-o", "one.png").code == 0
    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (451, 300)
    assert "wasn't detected" in hookmap("explain", cat, "-m", "detector.py:build", "-t", "box:7").err


def test_predictions_in_words_and_as_one_document(hookmap, cat: Path, coffee: Path, lens: hm.Lens) -> None:
    result = hookmap("predict", cat, coffee, "missing.jpg", "--top", 2)
    assert result.code == 1
    assert re.search(r"^cat\n +38.6%  tiger cat \(282\)\n +34.2%  Egyptian cat \(285\)\ncoffee\n", result.out)
    assert result.err == "hookmap: missing.jpg can't be read (No such file or directory); check the path\n"
    document = json.loads(hookmap("predict", cat, coffee, "--json").out)
    for row, photo in zip(document["images"], (cat, coffee), strict=True):
        assert row["image"] == str(photo)
        expected = lens.predict(photo)[0]
        assert [(p["index"], p["label"]) for p in row["predictions"]] == [(p.index, p.label) for p in expected]
        assert [p["probability"] for p in row["predictions"]] == pytest.approx([p.probability for p in expected])


def test_detections_are_predicted_and_the_best_explained(hookmap, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "detector.py").write_text(DETECTOR)
    document = json.loads(hookmap("predict", cat, "-m", "detector.py:build", "--json").out)
    boxes = [prediction["box"] for prediction in document["images"][0]["predictions"]]
    assert len(boxes) == 2
    assert re.search(r"bright \(0\)  at \d+,\d+,\d+,\d+", hookmap("predict", cat, "-m", "detector.py:build").out)
    document = json.loads(hookmap("explain", cat, "-m", "detector.py:build", "--top", 1, "--json").out)
    assert [row["box"] for row in document["heatmaps"]] == [pytest.approx(boxes[0])]


def test_the_most_probable_classes_are_explained(hookmap, cat: Path, coffee: Path) -> None:
    document = json.loads(hookmap("explain", cat, coffee, "--top", 3, "-o", "maps", "--json").out)
    assert [row["index"] for row in document["heatmaps"]][:3] == [282, 285, 281]
    probabilities = [row["probability"] for row in document["heatmaps"]]
    assert probabilities[:3] == sorted(probabilities[:3], reverse=True)
    assert {row["file"] for row in document["heatmaps"]} == {"maps/cat_gradcam.png", "maps/coffee_gradcam.png"}
    assert "leave out --target" in hookmap("explain", cat, "--top", 3, "-t", "tabby").err


def test_the_same_sentence_is_said_once(hookmap, cat: Path, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(cat.read_bytes())
    for arguments in (("-t", "1000"), ("-t", "tabbby"), ("-t", "1000", "--tile", 200)):
        result = hookmap("explain", *sorted(tmp_path.glob("*.jpg")), *arguments, "-o", "maps")
        assert result.code == 1
        assert result.err.count("1000 classes") + result.err.count("tabby (281)") == 1
        assert not (tmp_path / "maps").exists()
    assert "likewise 3 more images" in result.err


PLAIN = """
import torch
import hookmap as hm


def plain():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                              torch.nn.Flatten(), torch.nn.Linear(8, 4))
    return net


def lens():
    steps = hm.Preprocessing(size=(32, 32), resize=32, mean=(0.5,) * 3, std=(0.25,) * 3)
    return hm.Lens(plain(), preprocessing=steps, labels=["a", "b", "c", "d"])


def nothing():
    plain()
"""


def test_a_plain_module_is_explained_as_a_lens_of_it_is(hookmap, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(PLAIN)
    (tmp_path / "names.txt").write_bytes("\ufeffa\nb\nc\nd\n".encode())
    how = ["--size", "32", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--labels", "names.txt"]
    assert hookmap("explain", cat, "-m", "net.py:plain", *how, "-t", "a", "-o", "plain.npz").code == 0
    assert hookmap("explain", cat, "-m", "net.py:lens", "-t", "a", "-o", "lens.npz").code == 0
    plain, lens = hm.load(tmp_path / "plain.npz")[0], hm.load(tmp_path / "lens.npz")[0]
    assert (plain.target, plain.index) == (lens.target, lens.index) == ("a", 0)
    assert torch.equal(plain.raw, lens.raw)
    assert "Conv2d" in hookmap("layers", "net.py:plain", "--size", "24x32").out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-m", "net.py:plain"], "on the command line --size, --mean and --std"),
        (["-m", "net.py:plian"], "net.py has no 'plian'; did you mean plain?"),
        (["-m", "net.py:zzz"], "net.py has no 'zzz'; it has plain, lens, nothing"),
        (["-m", "net.py"], "name the function in it that builds the model, as in net.py:build"),
        (["-m", "net.py:nothing"], "gave a NoneType; expected an nn.Module, a hookmap.Adapter or a hookmap.Lens"),
        (["-m", "net.py:lens", "--size", "32"], "gave a Lens, which holds all of that itself"),
        (["-m", "net.py:plain", "--size", "big"], "--size is 'big'"),
        (["-m", "net.py:plain", "--size", "3x2x1"], "such as 224, or HxW"),
        (["-m", "net.py:plain", "--std", "0"], "expected numbers above 0"),
        (["-m", "net.py:plain", "--size", "32", "--mean", "0.5,0.5"], "2 means and 3 stds"),
    ],
)
def test_a_model_of_ones_own_that_is_named_wrongly(
    hookmap, cat: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "net.py").write_text(PLAIN)
    result = hookmap("explain", cat, *arguments)
    assert result.code == 1
    assert sentence in result.err
    assert result.err.count("\n") == 1


def test_explain_and_run_take_the_same_options_as_python(monkeypatch: pytest.MonkeyPatch) -> None:
    from hookmap.attribution.planning import ExplainOptions
    from hookmap.cli.options import AskOptions, SpeedOptions

    asked = {
        **AskOptions(budget=3, part="signed", fuse="mean", check=True).options(),
        "batch_size": SpeedOptions().batch_size,
    }
    assert asked.keys() == ExplainOptions.__annotations__.keys() - {"on_error", "progress"}


def test_an_unknown_option_of_explain_is_a_sentence(lens: hm.Lens, cat: Path) -> None:
    with pytest.raises(hm.HookmapError, match="no option 'aug_smoth' here; did you mean aug_smooth"):
        lens.explain(cat, aug_smoth=True)  # type: ignore[call-arg]


def test_why_this_and_not_that(hookmap, cat: Path) -> None:
    result = hookmap("explain", cat, "-t", "tiger cat", "--versus", "tabby", "--part", "signed", "-o", "versus.png")
    assert "tiger cat rather than tabby" in result.out


@pytest.mark.filterwarnings("ignore:of 'cat' the tiles together show:hookmap.HookmapWarning")
def test_long_work_says_how_far_it_is_where_nobody_sees_a_bar(
    cat: Path, lens: hm.Lens, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hookmap._progress.SILENCE", math.inf)
    lens.explain_in_tiles(cat, tile=200, batch_size=2)
    assert not capsys.readouterr().err  # short work says nothing
    monkeypatch.setattr("hookmap._progress.SILENCE", 0.0)
    lens.explain_in_tiles(cat, tile=200, batch_size=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("tiles: 2 of ")
    assert len(lines) == math.ceil(int(lines[0].split()[-1]) / 2) - 1  # the end is no news
    lens.explain_in_tiles(cat, tile=200, progress=False)
    assert not capsys.readouterr().err


def test_a_large_photo_in_tiles(hookmap, cat: Path, tmp_path: Path) -> None:
    assert hookmap("explain", cat, "--tile", "200", "-o", "tiles.png").code == 0
    with Image.open(tmp_path / "tiles.png") as image:
        assert image.size == (451, 300)


def test_concepts_of_two_photos(hookmap, cat: Path, coffee: Path, tmp_path: Path) -> None:
    assert "espresso" in hookmap("concepts", cat, coffee, "-k", "3", "-o", "concepts.png").out
    assert (tmp_path / "concepts.png").exists()


def test_attention_its_distances_a_film_and_the_logit_lens(hookmap, cat: Path, coffee: Path, tmp_path: Path) -> None:
    (tmp_path / "vit.py").write_text(
        "import timm\n\n\ndef build():\n    return timm.create_model('vit_tiny_patch16_224', depth=2)\n"
    )
    model = ("-m", "vit.py:build")
    assert hookmap("attention", cat, *model, "-l", "blocks.1", "--at", "200,100", "--film", "films/").code == 0
    assert hookmap("attention", cat, coffee, *model, "--distance", "-o", "far").code == 0
    assert hookmap("logit-lens", cat, *model, "-t", "281").code == 0
    names = ["cat_attention.png", "cat_logit_lens.png", "far", "films", "vit.py"]
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("__")) == names
    assert sorted(p.name for p in (tmp_path / "far").iterdir()) == ["cat_attention.png", "coffee_attention.png"]
    with Image.open(tmp_path / "films" / "cat_rollout.webp") as film:
        assert film.n_frames == 2
    assert "X,Y in pixels" in hookmap("attention", cat, *model, "--at", "200").err
    assert "leave out --at" in hookmap("attention", cat, *model, "--distance", "--at", "2,2").err
    assert "has no attention that can be read" in " ".join(hookmap("attention", cat).err.split())


def test_one_bad_image_among_good_ones(hookmap, cat: Path, tmp_path: Path) -> None:
    result = hookmap("explain", cat, "missing.jpg", "-o", "maps")
    assert result.code == 1
    assert "missing.jpg can't be read" in result.err
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["cat_gradcam.png"]


def test_features_of_vgg(hookmap, cat: Path, tmp_path: Path) -> None:
    result = hookmap("features", cat, "-m", "vgg11_bn", "--no-pretrained", "--logdir", "runs", "-o", "maps")
    assert result.code == 0
    assert "8 layers" in result.out
    assert "random weights" in result.err
    assert len(list((tmp_path / "maps").glob("0*_features.*.png"))) == 8
    assert (tmp_path / "maps" / "overview.png").exists()
    assert len(list((tmp_path / "runs").glob("events.out.tfevents.*"))) == 1


def test_lists(hookmap) -> None:
    assert "heatmaps are taken here" in hookmap("layers").out
    assert "gradcam" in hookmap("methods").out
    assert re.search(r"efficientnet_lite0 +hookmap +packaged", hookmap("models", "lite0").out)
    assert hookmap("models", "zzzz").code == 1
    assert hookmap("--version").out.strip() == hm.__version__
    assert "Examples" in hookmap("explain", "--help").out


def test_as_a_program(cat: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "hookmap", "explain", "nowhere.jpg"], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 1
    assert run.stderr == "hookmap: nowhere.jpg can't be read (No such file or directory); check the path\n"


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, cat: Path) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "cut.jpg").write_bytes(cat.read_bytes()[:9000])
    (folder / "text.jpg").write_text("no image")
    (folder / "bomb.png").write_bytes(bomb())
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    np.save(folder / "array.npy", np.zeros((3, 9, 9)))
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), folder / "other.pt")
    torch.save({"hook": torchvision.models.resnet18(weights=None)}, folder / "pickled.pt")
    (folder / "file").touch()
    return folder


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{bad}/cut.jpg"], "is damaged"),
        (["{bad}/text.jpg"], "isn't an image"),
        (["{bad}/dot.png"], "1x1 pixels, too small"),
        (["{bad}/bomb.png"], "decompression bombs do"),
        (["{bad}/array.npy"], "isn't an image"),
        (["{cat}", "-m", "resnet5O"], "did you mean resnet50"),
        (["{cat}", "-l", "blocks.77"], "no layer 'blocks.77'; did you mean"),
        (["{cat}", "-t", "tabbby"], "did you mean tabby (281)"),
        (["{cat}", "-t", "1000"], "has 1000 classes"),
        (["{cat}", "--method", "gradcan"], "did you mean gradcam"),
        (["{cat}", "-m", "resnet18", "--weights", "{bad}/other.pt"], "looks like another architecture"),
        (["{cat}", "-m", "resnet18", "--weights", "{bad}/pickled.pt"], "can run code"),
        (["{cat}", "-o", "{bad}/file/cam.png"], "can't be written"),
        (["{cat}", "--colormap", "infernal"], "did you mean inferno"),
        (["{cat}", "--opacity", "7"], "expected a number from 0 to 1"),
        (["{cat}", "--opacity", "much"], "opacity is 'much'; expected a number from 0 to 1, or 'ramp'"),
        (["{cat}", "--scale", "log"], "there's no scale 'log'; use 'max', 'minmax' or 'symmetric'"),
        (["{cat}", "--limit", "-1"], "limit is -1.0; expected the value drawn as the strongest"),
        (["{cat}", "--device", "warp"], "can't be used here"),
        (["{cat}", "--labels", "{bad}/nothing.txt"], "can't be read as a list of labels"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    hookmap, bad: Path, cat: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    result = hookmap("explain", *(a.format(bad=bad, cat=cat) for a in arguments))
    assert result.code == 1
    assert sentence in result.err
    assert result.err.startswith("hookmap: ")
    assert "Traceback" not in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_is_run_continued_and_reported(hookmap, cat: Path, coffee: Path, tmp_path: Path) -> None:
    photos = tmp_path / "my photos"
    photos.mkdir()
    for photo in (cat, coffee):
        (photos / photo.name).write_bytes(photo.read_bytes())
    result = hookmap("run", photos, "-o", "run", "--channels", "explained", "--workers", 0)
    assert (result.code, result.err) == (0, "")
    assert "2 images, 2 heatmaps by gradcam at bn2 in run" in result.out
    assert "--resume" in hookmap("run", photos, "-o", "run").err
    (photos / "text.jpg").write_text("no image")
    result = hookmap("run", photos, "-o", "run", "--channels", "explained", "--workers", 0, "--resume")
    assert result.code == 0
    assert "1 image without a heatmap, e.g. text.jpg" in result.err
    assert hookmap("report", "run").out.strip() == "run/report.html"
    assert "espresso" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_methods_are_compared_and_the_page_is_written_again(hookmap, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(PLAIN)
    (tmp_path / "photos").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    asked = ["compare", "photos", "-m", "net.py:lens", "--method", "layercam", "-l", "1", "-o", "verdict"]
    result = hookmap(*asked)
    assert result.code == 0
    assert "With 8 images this is only a hint" in result.out
    assert result.out.splitlines()[-1] == "-> verdict/verdict.html"
    page = (tmp_path / "verdict" / "verdict.html").read_text(encoding="utf-8")
    assert "--resume" in hookmap(*asked).err
    (tmp_path / "verdict" / "verdict.html").unlink()
    assert json.loads(hookmap(*asked, "--resume", "--json").out)["judgement"]["images"] == 8
    assert hookmap("report", "verdict").out.strip() == "verdict/verdict.html"
    assert (tmp_path / "verdict" / "verdict.html").read_text(encoding="utf-8") == page
    assert "--versus goes with runs" in hookmap("report", "verdict", "--versus", "verdict").err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nowhere/", "-o", "r"], "isn't there"),
        (["run", "{cat}", "-o", "r", "-t", "tabbby"], "did you mean tabby (281)"),
        (["run", "{cat}", "-o", "r", "--method", "gradcan"], "did you mean gradcam"),
        (["run", "{cat}", "-o", "r", "--engine", "spark"], "local, ray"),
        (["run", "{cat}", "-o", "{cat}/r"], "can't be written"),
        (["report", "nowhere"], "no run.json"),
    ],
)
def test_a_bad_run_ends_in_one_sentence(
    hookmap, cat: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    result = hookmap(*(a.format(cat=cat) for a in arguments))
    assert result.code == 1
    assert sentence in result.err
    assert result.err.startswith("hookmap: ")
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
