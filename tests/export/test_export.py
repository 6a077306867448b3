"""Files: what they say, what is refused, and that nothing is half-written or changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from hookmap.export import EXPORTABLE
from hookmap.export.check import check
from hookmap.export.files import KINDS
from library_models import snapshot, unchanged
from networks import convnet, noise

onnxruntime = pytest.importorskip("onnxruntime")
WAY = hm.Preprocessing(size=(24, 32), resize=(24, 32), mean=(0.5,) * 3, std=(0.25,) * 3)
LABELS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu"]


def lens(net: nn.Module | None = None) -> hm.Lens:
    return hm.Lens(net or convnet(), preprocessing=WAY, labels=LABELS)


def ran(file: Path, x: Tensor) -> dict[str, np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(str(file))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": x.numpy()}), strict=True))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lens().export(tmp_path_factory.mktemp("out") / "net.onnx", "layercam", "bend1", ["predicted", "cat"])


def test_one_file_gives_the_prediction_and_two_heatmaps_for_any_number_of_images(file: Path) -> None:
    for count in (1, 3, 5):
        x = noise(count, 3, 24, 32, seed=count)
        found = ran(file, x)
        wanted = lens().explain(x, ["predicted", 2], "bend1", "layercam")
        maps = torch.stack([h.values for h in wanted]).unflatten(0, (count, 2)).numpy()
        assert np.abs(found["heatmap"] - maps).max() <= 1e-5 * maps.max()
        assert np.allclose(found["prediction"], convnet()(x).detach().numpy(), atol=1e-5)


def test_the_file_says_what_it_is(file: Path) -> None:
    said = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map["hookmap"]
    about = json.loads(said)
    assert about["labels"] == LABELS
    assert about["targets"] == ["predicted", "cat"]
    assert (about["method"], about["layers"], about["batch"]) == ("layercam", ["bend1"], None)
    assert about["heatmap"] == {"grid": [12, 16], "spans": [24, 32]}
    assert hm.Preprocessing.from_json(about["preprocessing"]) == WAY


def test_a_file_of_ours_is_read_again_as_what_predicts(file: Path) -> None:
    again = hm.Lens(str(file))
    x = noise(2, 3, 24, 32, seed=6)
    assert again.preprocessing == WAY
    assert [p[0].label for p in again.predict(x)] == [p[0].label for p in lens().predict(x)]
    before, after = (one.explain(x, "dog", method="gradcam")[1].values for one in (lens(), again))
    assert torch.allclose(before, after, rtol=0, atol=1e-5 * float(before.max()))


def test_pt2_gives_the_same(tmp_path: Path) -> None:
    place = lens().export(tmp_path / "net.pt2", "hirescam", "bend1", 3, part="signed", progress=False)
    x = noise(4, 3, 24, 32, seed=8)
    more = {"hookmap.json": ""}
    prediction, heatmap = torch.export.load(place, extra_files=more).module()(x)
    wanted = torch.stack([h.raw for h in lens().explain(x, 3, "bend1", "hirescam")])
    assert torch.allclose(prediction, convnet()(x), atol=1e-5)
    assert torch.allclose(heatmap[:, 0], wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert json.loads(more["hookmap.json"])["part"] == "signed"


def test_the_model_is_left_as_it_came(tmp_path: Path) -> None:
    net = convnet().train()
    net.conv1.weight.requires_grad_(False)
    before, random = snapshot(net), torch.get_rng_state()
    hm.Lens(net, preprocessing=WAY).export(tmp_path / "net.pt2", progress=False)
    assert unchanged(net, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled()


class OfTwo(nn.Module):
    """Takes images in pairs or alone, as what was exported for one does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convnet()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("one image at a time")
        return self.net(x)


def test_where_the_number_of_images_is_fixed_it_is_said(tmp_path: Path) -> None:
    with pytest.warns(hm.HookmapWarning, match="takes one image at a time"):
        place = hm.Lens(OfTwo(), preprocessing=WAY).export(tmp_path / "net.onnx", "gradcam", "net.bend1", 1)
    session = onnxruntime.InferenceSession(str(place))
    assert session.get_inputs()[0].shape == [1, 3, 24, 32]
    assert json.loads(session.get_modelmeta().custom_metadata_map["hookmap"])["batch"] == 1


@pytest.mark.parametrize("example", [None, noise(1, 3, 24, 32)], ids=["the lens's own size", "an example's size"])
def test_the_file_says_how_any_photo_becomes_its_one_size(example: Tensor | None, tmp_path: Path) -> None:
    way = hm.Preprocessing(size=(16, 16), resize=20, any_size=True)
    place = tmp_path / "net.onnx"
    with pytest.warns(
        hm.HookmapWarning, match=r"net.onnx takes images of .* \(h x w\) alone, where this lens takes any size"
    ):
        hm.Lens(convnet(), preprocessing=way).export(place, "gradcam", "bend1", 1, image=example, progress=False)
    session = onnxruntime.InferenceSession(str(place))
    about = json.loads(session.get_modelmeta().custom_metadata_map["hookmap"])
    size = (16, 16) if example is None else (24, 32)
    assert tuple(session.get_inputs()[0].shape[2:]) == size == tuple(about["preprocessing"]["size"])
    photo = np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)
    x = next(hm.Lens(str(place)).engine.batches(photo, 1)).x
    assert ran(place, x)["heatmap"].shape[0] == 1


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
def test_grey_and_odd_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, 2), nn.GELU(), nn.MaxPool2d(3, 2), nn.Conv2d(6, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    way = hm.Preprocessing(size=(37, 53), resize=(37, 53), mean=(0.4,), std=(0.3,))
    grey = hm.Lens(net, preprocessing=way)
    place = grey.export(tmp_path / "grey.onnx", "gradcam", "1", 2, progress=False)
    x = noise(3, 1, 37, 53, seed=5)
    wanted = torch.stack([h.values for h in grey.explain(x, 2, "1", "gradcam")]).numpy()
    assert np.abs(ran(place, x)["heatmap"][:, 0] - wanted).max() <= 1e-4 * wanted.max()


def test_half_precision_is_exported_as_it_is(tmp_path: Path) -> None:
    half = hm.Lens(convnet().half(), preprocessing=WAY)
    place = half.export(tmp_path / "half.onnx", "gradcam", "bend2", 2, progress=False)
    x = noise(3, 3, 24, 32, seed=5).half()
    wanted = torch.stack([h.values for h in half.explain(x, 2, "bend2", "gradcam")]).numpy()
    found = ran(place, x)
    assert found["prediction"].dtype == np.float16
    assert np.abs(found["heatmap"][:, 0] - wanted).max() <= 0.02 * wanted.max()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"method": "ablationcam"}, "ablationcam can't be exported, because it takes more than one pass"),
        ({"method": "cam"}, "what can be: gradcam, "),
        ({"method": ["gradcam", "layercam"]}, "2 methods came"),
        ({"layer": ["bend1", "bend2"]}, "2 layers came"),
        ({"layer": "flat"}, "can't be read as a grid"),
        ({"target": "unicorn"}, "unicorn"),
        ({"path": "net.png"}, "ends in neither .onnx nor .pt2"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(how: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / how.pop("path", "net.onnx")
    with pytest.raises(hm.HookmapError, match=says):
        lens().export(path, **how)
    assert not any(tmp_path.iterdir())


def test_precision_of_a_lens_is_no_property_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(hm.HookmapError, match="precision='bf16' is how a lens runs a model"):
        hm.Lens(convnet(), preprocessing=WAY, precision="bf16").export(tmp_path / "net.onnx")


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    place = tmp_path / "net.pt2"
    place.write_bytes(b"mine")
    with pytest.raises(hm.HookmapError, match="is there already; pass overwrite=True"):
        lens().export(place)
    assert place.read_bytes() == b"mine"
    lens().export(place, overwrite=True, progress=False)
    assert place.stat().st_size > 1000


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_export_that_is_stopped_leaves_nothing(error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(type(KINDS[".pt2"]), "run", stopped)
    net = convnet()
    before = snapshot(net)
    with pytest.raises(error):
        lens(net).export(tmp_path / "new" / "net.pt2", progress=False)
    assert not any(tmp_path.iterdir())
    assert unchanged(net, before)


def test_a_file_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = type(KINDS[".pt2"]).run

    def off(self: Any, *given: Any) -> dict[str, Tensor]:
        found = plain(self, *given)
        return found | {"heatmap": found["heatmap"] * 1.01}

    monkeypatch.setattr(type(KINDS[".pt2"]), "run", off)
    with pytest.raises(hm.ModelError, match="the file's 'heatmap' is off the model's by .*of its scale"):
        lens().export(tmp_path / "net.pt2", progress=False)
    assert not any(tmp_path.iterdir())


def test_what_depends_on_the_last_digit_cannot_be_checked() -> None:
    def chaotic(x: Tensor) -> dict[str, Tensor]:
        return {"heatmap": torch.sin(1e9 * x)}

    with pytest.raises(hm.ModelError, match="the last digit of the input already changes"):
        check(chaotic, chaotic, noise(1, 3, 8, 8), None)


def test_an_operator_without_a_form_in_onnx_is_said(tmp_path: Path) -> None:
    class Determined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            return maps.mean((2, 3)) + torch.linalg.svdvals(maps[:, :, :4, :4])[..., 0]

    with pytest.raises(hm.ModelError, match="ONNX has no form for a part of this model"):
        hm.Lens(Determined(), preprocessing=WAY).export(tmp_path / "net.onnx", "gradcam", "conv", 1, progress=False)
    assert not any(tmp_path.iterdir())


def test_the_list_of_methods_is_what_the_page_says() -> None:
    named = {"gradcam", "gradcampp", "hirescam", "layercam", "xgradcam", "eigencam", "odam", "valuepath"}
    assert named <= set(EXPORTABLE)
    assert not {"scorecam", "rise", "lrp", "smoothgradcampp", "random"} & set(EXPORTABLE)
