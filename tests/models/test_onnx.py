"""ONNX files by their path, and what strange ones are told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from networks import noise
from trained import PHOTOS, WEIGHTS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnx2torch")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def saved(path: Path, nodes: list[Any], shape: list[Any], weights: dict[str, Any], opset: int = 13) -> str:
    """A file with one input and one output, ``y``."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    return str(path)


def classifier(path: Path, *before: Any, shape: Any = ("n", 3, 32, 48), more: Any = None, opset: int = 13) -> str:
    """A convolution, a mean and nothing else, after what comes before it (``z`` to it)."""
    nodes = [
        *before,
        helper.make_node("Conv", ["z" if before else "x", "w"], ["c"], name="/stem/conv/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return saved(path, nodes, list(shape), {"w": noise(5, 3, 3, 3), **(more or {})}, opset)


def test_a_segmenter_is_explained_by_its_path_in_one_line(tmp_path: Path) -> None:
    if not (WEIGHTS / "u2netp.onnx").exists():
        pytest.skip("the trained weights u2netp.onnx aren't on this machine")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        heatmap = hm.Lens(str(WEIGHTS / "u2netp.onnx")).explain(PHOTOS / "both.png")[0]
    assert "doesn't say how pictures are preprocessed" in " ".join(str(one.message) for one in said)
    assert heatmap.evidence == "some"
    assert heatmap.geometry.input == (320, 320)


@pytest.mark.parametrize("name", ["FastestDet.onnx", "centerface.onnx"])
def test_detectors_files_are_read(name: str) -> None:
    if not (WEIGHTS / name).exists():
        pytest.skip(f"the trained weights {name} aren't on this machine")
    warnings.simplefilter("ignore", hm.HookmapWarning)
    way = hm.Preprocessing(size=(352, 352), resize=(352, 352), mean=(0.0,) * 3, std=(1.0,) * 3)
    lens = hm.Lens(str(WEIGHTS / name), preprocessing=way)
    assert len(list(lens.model.named_modules())) > 50
    lens.explain(PHOTOS / "both.png")


def test_names_and_sizes_are_the_files(tmp_path: Path) -> None:
    lens = hm.Lens(classifier(tmp_path / "net.onnx"))
    assert lens.preprocessing is not None
    assert lens.preprocessing.size == (32, 48)
    x = noise(2, 3, 32, 48)
    assert [h.raw.shape for h in lens.explain(x, 2, "stem.conv.Conv", "gradcam")] == [(32, 48)] * 2
    assert {"stem.conv.Conv", "Relu_1"} <= {name for name, _ in lens.model.named_modules()}


def test_what_was_made_for_one_image_takes_them_one_by_one(tmp_path: Path) -> None:
    name, x = classifier(tmp_path / "net.onnx", shape=(1, 3, 32, 48)), noise(3, 3, 32, 48)
    with pytest.warns(hm.HookmapWarning, match="takes one image at a time"):
        alone = hm.Lens(name).explain(x, 1, "stem.conv.Conv", "gradcam")
    together = hm.Lens(classifier(tmp_path / "any.onnx")).explain(x, 1, "stem.conv.Conv", "gradcam")
    assert torch.allclose(alone.raw, together.raw, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(123.0, 255.0), (0.5, 1.0)])
def test_a_graph_that_normalises_by_itself_is_given_pixels(mean: float, std: float, tmp_path: Path) -> None:
    subtract = helper.make_node("Sub", ["x", "m"], ["z"])
    lens = hm.Lens(classifier(tmp_path / "net.onnx", subtract, more={"m": np.full((1, 3, 1, 1), mean)}))
    assert lens.preprocessing is not None
    assert (lens.preprocessing.mean, lens.preprocessing.std) == ((0.0,) * 3, (1 / std,) * 3)
    with pytest.warns(hm.HookmapWarning, match="the graph normalises by itself"):
        lens.predict(np.zeros((40, 40, 3), np.uint8))


def test_channels_last_are_turned(tmp_path: Path) -> None:
    turn = helper.make_node("Transpose", ["x"], ["z"], perm=[0, 3, 1, 2])
    last = hm.Lens(classifier(tmp_path / "last.onnx", turn, shape=("n", 32, 48, 3)))
    first = hm.Lens(classifier(tmp_path / "first.onnx"))
    x = noise(2, 3, 32, 48)
    assert torch.allclose(last.engine.called(x), first.engine.called(x), atol=1e-6)


class Bent(nn.Module):
    """What newer operator sets say in other words: GELU, means over axes, layer norms."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.GELU())
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.norm(self.stem(x).permute(0, 2, 3, 1))
        return self.head(maps.mean((1, 2)))


def test_a_file_of_pytorchs_own_exporter_keeps_the_modules_names(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    net, x = Bent().eval(), noise(2, 3, 24, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(net, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim("n")},))
    made.save(tmp_path / "net.onnx")
    lens = hm.Lens(str(tmp_path / "net.onnx"))
    other = noise(3, 3, 24, 32, seed=4)
    assert torch.allclose(lens.engine.called(other), net(other), atol=1e-5)
    assert "stem.0.Conv" in dict(lens.model.named_modules())
    wanted = hm.Lens(net).explain(other, 1, "stem.0", "hirescam").raw
    assert torch.allclose(lens.explain(other, 1, "stem.0.Conv", "hirescam").raw, wanted, atol=1e-5)


def test_an_operator_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    name = saved(tmp_path / "net.onnx", [helper.make_node("Hardmax", ["x"], ["y"])], [1, 3, 8, 8], {})
    with pytest.raises(hm.ModelError, match=r"there's no form of in PyTorch: Hardmax; pass the nn.Module"):
        hm.Lens(name)


@pytest.mark.parametrize("content", [b"", b"no onnx at all", b"\x08\x07" * 50, b"PK\x03\x04" + bytes(100)])
def test_what_is_no_onnx_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(hm.ModelError, match="can't be read as ONNX"):
        hm.Lens(str(tmp_path / "net.onnx"))


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(hm.ModelError, match="there's no ONNX file nowhere.onnx"):
        hm.Lens("nowhere.onnx")
    with pytest.raises(hm.ModelError, match="holds its own weights"):
        hm.Lens("nowhere.onnx", pretrained=False)


@pytest.mark.parametrize("place", ["../secret", "/etc/hostname", "link"])
def test_weights_outside_of_the_folder_are_not_read(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(5 * 27 * 4))
    (folder / "link").symlink_to(tmp_path / "secret")
    name = classifier(folder / "net.onnx")
    graph = onnx.load(name)
    weights = graph.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=place)
    Path(name).write_bytes(graph.SerializeToString())
    with pytest.raises(hm.ModelError, match="names weights outside of its folder"):
        hm.Lens(name)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    plain = classifier(tmp_path / "net.onnx")
    (tmp_path / "two").mkdir()
    onnx.save(onnx.load(plain), tmp_path / "two" / "net.onnx", save_as_external_data=True, size_threshold=0)
    x = noise(2, 3, 32, 48)
    both = [hm.Lens(str(place)).engine.called(x) for place in (plain, tmp_path / "two" / "net.onnx")]
    assert torch.equal(*both)
    for beside in (tmp_path / "two").glob("*"):
        if beside.name != "net.onnx":
            beside.unlink()
    with pytest.raises(hm.ModelError, match="aren't beside it"):
        hm.Lens(str(tmp_path / "two" / "net.onnx"))


def test_objects_of_runtimes_are_refused_with_what_to_do(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(classifier(tmp_path / "net.onnx"))
    with pytest.raises(hm.ModelError, match=r"a InferenceSession of ONNX Runtime.*Lens.export \(hookmap export\)"):
        hm.Lens(session)
    for module, named in (("openvino.runtime.ie_api", "OpenVINO"), ("tensorrt", "TensorRT")):
        engine = type("Engine", (), {"__module__": module})()
        with pytest.raises(hm.ModelError, match=f"Engine of {named}, which gives neither layers nor gradients"):
            hm.Lens(engine)
    with pytest.raises(hm.ModelError, match="expected a torch.nn.Module or a model's name"):
        hm.Lens(3)
