"""Options become models, and the lines that give the same again."""

from __future__ import annotations

from pathlib import Path

import pytest

import hookmap as hm
from hookmap.cli.options import ModelsOptions, PrecisionOptions
from hookmap.errors import ModelError


def test_several_models_are_named_as_they_were_given() -> None:
    options = ModelsOptions(models=["resnet18", "resnet34", "resnet18"], pretrained=False, device="cpu")
    named = options.named(PrecisionOptions())
    assert list(named) == ["resnet18", "resnet34"]
    assert named["resnet34"].command == "-m resnet34 --no-pretrained --device cpu"
    assert named["resnet34"].python == "hm.Lens('resnet34', device='cpu', pretrained=False)"
    with pytest.raises(ModelError, match="2 models are named, and --size, --mean describes one"):
        ModelsOptions(models=["a", "b"], size="32", mean="0.5").named(PrecisionOptions())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_line_of_python_makes_the_same_lens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("\n".join(f"class {index}" for index in range(1000)))
    options = ModelsOptions(models=["resnet18"], pretrained=False, labels=Path("names.txt"), size="64x96", device="cpu")
    named = options.named(PrecisionOptions())["resnet18"]
    lens = eval(named.python, {"hm": hm})
    assert (lens.labels[7], lens.preprocessing) == ("class 7", named.engine.preprocessing)
    words = named.command.split()
    assert words == ["-m", "resnet18", "--no-pretrained", "--labels", "names.txt", "--size", "64x96", "--device", "cpu"]
