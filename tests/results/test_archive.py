"""An explanation in one file, read again without the model."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import hookmap as hm
from detectors import scene, squares
from hookmap.methods.gradient import gradcam
from networks import convnet, noise


def equal(one: hm.Heatmap, other: hm.Heatmap) -> bool:
    told = (
        "layer",
        "target",
        "index",
        "score",
        "probability",
        "where",
        "box",
        "number",
        "geometry",
        "position",
    )
    return (
        all(getattr(one, name) == getattr(other, name) for name in told)
        and one.look.as_json() == other.look.as_json()
        and torch.equal(one.raw, other.raw)
        and torch.equal(one.map, other.map)
        and np.array_equal(one.picture.pixels, other.picture.pixels)
        and one.picture.name == other.picture.name
    )


def test_everything_is_read_again_bit_for_bit(lens: hm.Lens, cat: Path, coffee: Path, tmp_path: Path) -> None:
    targets = ["predicted", hm.Contrast("tabby", "espresso"), hm.Probability(281)]
    written = lens.explain([cat, coffee, tmp_path / "no.png"], targets, method=["layercam", "edges"], on_error="skip")
    read = hm.load(written.save(tmp_path / "cats.npz"))
    assert all(equal(one, other) for one, other in zip(written, read, strict=True))
    assert {name: str(error) for name, error in read.errors.items()} == {n: str(e) for n, e in written.errors.items()}
    assert isinstance(read.errors["no"], hm.ImageError)
    assert np.array_equal(np.asarray(read[0].overlay()), np.asarray(written[0].overlay()))
    assert read[0].question.settings == written[0].question.settings
    assert read[0].question.fingerprint == written[0].question.fingerprint


def test_pictures_in_memory_masks_and_references_are_kept(tmp_path: Path) -> None:
    mask = np.zeros((64, 96), bool)
    mask[6:28, 20:42] = True
    written = squares().explain(scene((0, 8, 24), (1, 40, 64)), [hm.Mask(mask), "green"])
    read = hm.load(written.save(tmp_path / "mask.npz"))
    assert all(equal(one, other) for one, other in zip(written, read, strict=True))


def test_a_file_without_its_picture_s_file_is_whole(lens: hm.Lens, cat: Path, tmp_path: Path) -> None:
    copy = tmp_path / "here.jpg"
    copy.write_bytes(cat.read_bytes())
    path = lens.explain(copy).save(tmp_path / "map.npz")
    before = np.asarray(hm.load(path)[0].overlay())
    copy.unlink()
    assert np.array_equal(np.asarray(hm.load(path)[0].overlay()), before)


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
def test_another_process_asks_again_and_gets_the_same_map_bit_for_bit(cat: Path, coffee: Path, tmp_path: Path) -> None:
    lens = hm.Lens("efficientnet_lite0", device="cpu")
    written = lens.explain([cat, coffee], ["predicted", 281], ["blocks.4", "bn2"], ["gradcam", "layercam"], seed=3)
    smooth = lens.explain(cat, method=["gradcampp", partial(gradcam)], noise_smooth=2, aug_smooth=True, seed=3)
    fused = lens.explain(cat, layer=["blocks.4", "bn2"], fuse="max", part="positive")
    path = hm.Explanation([*written, *smooth, *fused]).save(tmp_path / "asked.npz")
    code = (
        "import sys, torch, hookmap as hm; torch.set_num_threads(int(sys.argv[2])); lens = hm.Lens(device='cpu'); "
        "print([bool(torch.equal(lens.again(h).raw, h.raw)) for h in hm.load(sys.argv[1])])"
    )
    threads = str(torch.get_num_threads())
    out = subprocess.run([sys.executable, "-c", code, path, threads], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([True] * (len(written) + len(smooth) + len(fused)))


def test_a_preprocessed_input_and_a_detection_are_asked_again(tmp_path: Path) -> None:
    lens, x = hm.Lens(convnet()), noise(3, 3, 32, 40)
    for heatmap in hm.load(lens.explain(x, target=hm.PerImage([0, 1, "predicted"])).save(tmp_path / "x.npz")):
        assert torch.equal(lens.again(heatmap).raw, heatmap.raw)
    detector = squares()
    explanation = detector.explain(scene((0, 8, 24), (1, 40, 64)))
    last = hm.load(explanation.save(tmp_path / "boxes.npz"))[-1]
    again = detector.again(last)
    assert (again.where, again.box) == (last.where, last.box)
    assert torch.equal(again.raw, last.raw)


def test_other_weights_are_remarked(cat: Path) -> None:
    model = convnet()
    lens = hm.Lens(model)
    heatmap = lens.explain(noise(1, 3, 32, 40))[0]
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    with pytest.warns(hm.HookmapWarning, match="other weights"):
        assert not torch.equal(lens.again(heatmap).raw, heatmap.raw)


def test_other_files_are_refused_in_one_sentence(lens: hm.Lens, cat: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, a=np.zeros(3))
    with pytest.raises(hm.HookmapError, match=r"foreign\.npz is no explanation that hookmap saved"):
        hm.load(foreign)
    with pytest.raises(hm.HookmapError, match="is no explanation"):
        hm.load(cat)
    with pytest.raises(hm.HookmapError, match="can't be read"):
        hm.load(tmp_path / "none.npz")
    whole = lens.explain(cat).save(tmp_path / "whole.npz")
    part = tmp_path / "part.npz"
    part.write_bytes(whole.read_bytes()[:-400])
    with pytest.raises(hm.HookmapError, match="is no explanation|damaged"):
        hm.load(part)


def test_a_newer_file_is_refused(lens: hm.Lens, cat: Path, tmp_path: Path) -> None:
    with np.load(lens.explain(cat).save(tmp_path / "a.npz")) as file:
        arrays = dict(file)
    about = json.loads(arrays["about"].tobytes()) | {"version": 99}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(hm.HookmapError, match="newer hookmap"):
        hm.load(tmp_path / "b.npz")


def test_nothing_in_the_file_is_run(lens: hm.Lens, cat: Path, tmp_path: Path) -> None:
    """Pickled arrays, which could hold anything, are refused."""
    path = tmp_path / "evil.npz"
    np.savez(path, about=np.array([{"format": "hookmap explanation"}], dtype=object))
    with pytest.raises(hm.HookmapError, match="is no explanation"):
        hm.load(path)
