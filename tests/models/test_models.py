"""Models by name, by file and with checkpoints of every make."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

import hookmap as hm
from hookmap import models
from hookmap.models import checkpoint
from pictures import PHOTOS


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(1)
    return torchvision.models.resnet18(weights=None)


def weights_of(model: nn.Module) -> torch.Tensor:
    return model.conv1.weight


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"state_dict": s, "epoch": 3},
    lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    lambda s: {"module." + k: v for k, v in s.items()},
    lambda s: {"state_dict": {"model._orig_mod." + k: v for k, v in s.items()}},
    lambda s: {"state_dict": {"backbone." + k: v for k, v in s.items()}},
])  # fmt: skip
def test_checkpoints_of_many_makes(net: nn.Module, wrap: object, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(wrap(net.state_dict()), path)
    loaded = models.load("resnet18", weights=path)
    assert torch.equal(weights_of(loaded.model), weights_of(net))
    assert not loaded.model.training
    assert len(loaded.labels) == 1000


def test_safetensors_and_another_number_of_classes(tmp_path: Path) -> None:
    mine = torchvision.models.resnet18(weights=None, num_classes=7)
    save_file(mine.state_dict(), tmp_path / "w.safetensors")
    loaded = models.load("resnet18", weights=tmp_path / "w.safetensors")
    assert torch.equal(loaded.model.fc.weight, mine.fc.weight)
    assert loaded.labels is None
    tiny = timm.create_model("resnet10t", num_classes=3)
    torch.save(tiny.state_dict(), tmp_path / "t.pt")
    assert models.load("timm/resnet10t", weights=tmp_path / "t.pt").model.num_classes == 3


def test_a_checkpoint_of_another_architecture_is_explained_and_loads_nothing(net: nn.Module) -> None:
    other = torchvision.models.mobilenet_v2(weights=None)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(hm.ModelError, match=r"x.pt doesn't fit ResNet and looks like another architecture: \d+ of the"):
        checkpoint.load_into(net, other.state_dict(), source="x.pt")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Evil:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("code of a stranger",))


def test_files_that_are_no_checkpoints(tmp_path: Path, net: nn.Module) -> None:
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    torch.save(net, tmp_path / "whole.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(net.state_dict(), tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:5000])
    for name, sentence in {
        "text.pt": "can't be read as a checkpoint",
        "text.safetensors": "can't be read as a checkpoint",
        "evil.pt": "can run code",
        "whole.pt": "can run code",
        "list.pt": "holds no state dict but a list",
        "cut.pt": "can't be read as a checkpoint",
        "nowhere.pt": "there's no checkpoint",
    }.items():
        with pytest.raises(hm.ModelError, match=sentence):
            checkpoint.read_state_dict(tmp_path / name)


FACTORY = """
import torch
def build(num_classes=5): return torch.nn.Sequential(torch.nn.Conv2d(3, num_classes, 3), torch.nn.Flatten())
ready = build()
def broken(): raise RuntimeError("no data")
def wrong(): return 3
"""


def test_models_from_files_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_net_for_test.py"
    file.write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    for name in (f"{file}:build", "my_net_for_test.py:build", "my_net_for_test:build", "my_net_for_test:ready"):
        assert isinstance(models.load(name).model, nn.Sequential)
    assert sys.path == path
    for name, sentence in {
        f"{file}:nothing": "has no 'nothing'",
        f"{file}:broken": "RuntimeError: no data",
        f"{file}:wrong": "gave a int",
        "missing.py:build": "there's no file missing.py",
        "no_such_package:build": "No module named",
    }.items():
        with pytest.raises(hm.ModelError, match=sentence):
            models.load(name)


def test_names() -> None:
    with pytest.raises(hm.ModelError, match="did you mean resnet50"):
        models.load("resnet5O")
    assert type(models.load("torchvision/resnet18", pretrained=False).model).__module__.startswith("torchvision")
    assert type(models.load("timm/resnet18", pretrained=False).model).__module__.startswith("timm")
    noted = models.load("vit_tiny_patch16_224", pretrained=False)
    assert "random weights" in noted.note
    assert len(noted.labels) == 1000
    first, *rest = models.available("efficientnet")
    assert (first.name, first.weights) == ("efficientnet_lite0", "packaged")
    assert {"torchvision", "timm"} <= {entry.library for entry in rest}


@pytest.mark.parametrize(
    ("name", "function"),
    [("resnet18", "torchvision.models._api.load_state_dict_from_url"), ("timm/resnet10t", "timm.create_model")],
)
def test_without_a_network_the_way_out_is_said(name: str, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(function, offline)
    with pytest.raises(hm.ModelError, match="--weights FILE.*--no-pretrained"):
        models.load(name)


def test_what_is_known_of_modules() -> None:
    fresh = timm.create_model("resnet10t")
    assert models.describe(fresh).labels is None  # nobody taught its head ImageNet's classes
    assert "its untrained classes have no names" in models.describe(fresh).unnamed
    nn.init.normal_(fresh.get_classifier().bias)
    nn.init.normal_(fresh.get_classifier().weight)
    known = models.describe(fresh)
    assert known.note is None
    assert known.unnamed is None
    assert known.preprocessing.size == (176, 176)
    assert known.labels[281].startswith("tabby")
    assumed = models.describe(torchvision.models.resnet18(weights=None))
    assert "is assumed" in assumed.note
    assert "its untrained classes have no names" in assumed.unnamed
    assert models.describe(nn.Linear(2, 2)).preprocessing is None
    assert models.describe(torchvision.models.resnet18(weights=None, num_classes=3)).labels is None


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings(
    "ignore:must run observer before:UserWarning", "ignore:torch.quantize_per_tensor:UserWarning"
)
def test_a_quantised_model_is_opened_and_says_that_nothing_can_be_shown() -> None:
    from torchvision.models.quantization import mobilenet_v2

    about = {"preprocessing": hm.Preprocessing(size=(224, 224)), "labels": [*map(str, range(1000))]}
    lens = hm.Lens(mobilenet_v2(weights=None, quantize=True).eval(), **about)
    opened = lens.open(PHOTOS / "cat.jpg")
    assert opened.predict(top=1) == lens.predict(PHOTOS / "cat.jpg", top=1)[0]
    with pytest.raises(hm.LayerError, match="grid of positions"):
        opened.explain()


def test_a_timm_model_of_another_size_gets_pictures_of_that_size() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=96, depth=1, num_classes=4)
    lens = hm.Lens(model)
    assert lens.preprocessing is not None
    assert lens.preprocessing.size == (96, 96)
    assert lens.explain(PHOTOS / "cat.jpg", 1)[0].raw.shape == (6, 6)
