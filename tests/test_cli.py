"""The command line, run for real; every bad input ends in one sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from hookmap import cli
from test_images import bomb


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def hookmap(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Call the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["hookmap", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


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


def test_one_bad_image_among_good_ones(hookmap, cat: Path, tmp_path: Path) -> None:
    result = hookmap("explain", cat, "missing.jpg", "-o", "maps")
    assert result.code == 1
    assert "missing.jpg can't be read" in result.err
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["cat_gradcam.png"]


def test_features_of_vgg16_bn(hookmap, cat: Path, tmp_path: Path) -> None:
    result = hookmap("features", cat, "-m", "vgg16_bn", "--no-pretrained", "--logdir", "runs", "-o", "maps")
    assert result.code == 0
    assert "13 layers" in result.out
    assert "random weights" in result.err
    assert len(list((tmp_path / "maps").glob("0*_features.*.png"))) == 13
    assert (tmp_path / "maps" / "overview.png").exists()
    assert len(list((tmp_path / "runs").glob("events.out.tfevents.*"))) == 1


def test_lists(hookmap) -> None:
    assert "heatmaps are taken here" in hookmap("layers").out
    assert "gradcam" in hookmap("methods").out
    assert re.search(r"efficientnet_lite0 +hookmap +packaged", hookmap("models", "lite0").out)
    assert hookmap("models", "zzzz").code == 1
    assert hookmap("--version").out.strip() == "0.1.0"
    assert "Examples" in hookmap("explain", "--help").out


def test_as_a_program(cat: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "hookmap", "explain", "nowhere.jpg"], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 1
    assert run.stderr == "hookmap: nowhere.jpg can't be read (No such file or directory); check the path\n"


@pytest.fixture
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
