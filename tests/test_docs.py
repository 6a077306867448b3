"""The pages say what the code says, and what they show runs."""

from __future__ import annotations

import ast
import importlib.util
import json
import pkgutil
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import hookmap as hm
from hookmap import analysis, metrics, report
from hookmap.methods import INGREDIENTS, METHODS
from networks import convnet, noise
from pictures import PHOTOS, REPOSITORY

DOCS = REPOSITORY / "docs"
# What is built (the gallery, a page per name) isn't written here.
PAGES = [REPOSITORY / "README.md", *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]
BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.+?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


def script(name: str) -> ModuleType:
    """One of the scripts that write a page."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path) -> list[str]:
    """The Python of a page that runs without more weights and data than the repository brings."""
    return [match["code"] for match in BLOCK.finditer(page.read_text()) if match["why"] is None]


def sections(page: Path) -> dict[str, str]:
    """The Python under each heading."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return {title: BLOCK.search(text)["code"] for title, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages' examples find where they run: two photos, a broken one, a folder and a ZIP file of photos."""
    monkeypatch.chdir(tmp_path)
    tables = [(table, dict(table)) for table in (METHODS, INGREDIENTS)]
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for name in ("cat", "coffee"):
            shutil.copy(PHOTOS / f"{name}.jpg", ".")
            (tmp_path / "photos" / name).mkdir(parents=True)
            shutil.copy(PHOTOS / f"{name}.jpg", tmp_path / "photos" / name)
            archive.write(PHOTOS / f"{name}.jpg", f"{name}/1.jpg")
    Path("broken.jpg").write_bytes(b"no picture")
    yield tmp_path
    for table, before in tables:
        table.clear()
        table.update(before)


def run(code: str, page: str, names: dict[str, Any]) -> None:
    """As a script of this name would."""
    exec(compile(code, page, "exec"), names)


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page) and page.stem != "extending"],
    ids=lambda page: str(page.relative_to(REPOSITORY)),
)
def test_the_examples_of_a_page_run_one_after_the_other(page: Path, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "example", "hm": hm, "torch": torch}
    for code in blocks(page):
        run(code, page.name, names)


def check_source(names: dict[str, Any]) -> None:
    table = names["run"].table
    assert table["label"].tolist() == ["cat", "coffee"]
    assert table["prediction"].tolist() == ["tiger cat", "espresso"]


def check_logger(names: dict[str, Any]) -> None:
    numbers = dict(line.split(",")[1:] for line in Path("log/scalars.csv").read_text().splitlines())
    assert 0.3 < float(numbers["probability/cat"]) < 0.5
    assert len(list(Path("log/heatmaps").glob("*.png"))) == 1


def check_metric(names: dict[str, Any]) -> None:
    energy = names["table"].set_index("method")["energy"]
    assert energy["gradcam"] > 0.6 > 0.5 > energy["random"]


def check_kind_of_target(names: dict[str, Any]) -> None:
    seconds = [predictions[1].label for predictions in names["lens"].predict(["cat.jpg", "coffee.jpg"])]
    assert [heatmap.target for heatmap in names["explanation"]] == [f"second: {label}" for label in seconds]


CHECKS = {
    "A kind of target": check_kind_of_target,
    "A data source": check_source,
    "A logger": check_logger,
    "A metric": check_metric,
}


@pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")
@pytest.mark.parametrize("title", sections(DOCS / "extending.md"))
def test_how_to_add_something_is_complete_in_fewer_than_30_lines(title: str, folder: Path) -> None:
    code = sections(DOCS / "extending.md")[title]
    assert len(code.strip().splitlines()) < 30
    names: dict[str, Any] = {"__name__": "example"}
    run(code, title, names)
    CHECKS.get(title, lambda names: None)(names)


GRAD_CAM_PAGE = DOCS / "coming_from" / "pytorch_grad_cam.md"
GRAD_CAM_ROW = re.compile(r"\| `(?P<theirs>\w+\(model, .+?)` \| `(?P<ours>lens\..+?)` \|")


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.parametrize(("theirs", "ours"), GRAD_CAM_ROW.findall(GRAD_CAM_PAGE.read_text()))
def test_both_sides_of_the_table_for_those_who_come_from_grad_cam_give_the_same_map(theirs: str, ours: str) -> None:
    peers = pytest.importorskip("pytorch_grad_cam")
    targets, image = pytest.importorskip("pytorch_grad_cam.utils.model_targets"), peers.utils.image
    model, own = convnet(stride=1), convnet(stride=1)  # the peer leaves gradients behind
    x = noise(2, 3, 24, 32)
    names = {**vars(peers), **vars(targets), "model": model, "first": model.bend1, "second": model.bend2, "x": x}
    names |= {"two": [targets.ClassifierOutputTarget(1)] * 2}
    expected = eval(theirs, names)
    plain = re.sub('"(first|second)"', lambda match: {"first": '"bend1"', "second": '"bend2"'}[match[1]], ours)
    maps = np.stack([heatmap.values for heatmap in eval(plain, {"hm": hm, "lens": hm.Lens(own), "x": x})])
    mine = image.scale_cam_image(image.scale_cam_image(maps, (32, 24)))
    assert expected.max() > 0.9
    assert np.abs(mine - expected).max() <= 2e-5


def test_the_table_for_those_who_come_from_grad_cam_is_read() -> None:
    assert len(GRAD_CAM_ROW.findall(GRAD_CAM_PAGE.read_text())) >= 15


ROW = re.compile(r"^\| `(?P<theirs>\w+\(.+?)` \| `(?P<ours>lens\.explain\(.+?)` \|", re.MULTILINE)
TORCH_CAM_ROWS, CAPTUM_ROWS = (
    ROW.findall((DOCS / "coming_from" / f"{peer}.md").read_text()) for peer in ("torch_cam", "captum")
)


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.parametrize(("theirs", "ours"), TORCH_CAM_ROWS)
def test_both_sides_of_the_table_for_those_who_come_from_torch_cam_give_the_same_map(theirs: str, ours: str) -> None:
    peers = pytest.importorskip("torchcam.methods")
    model, own = convnet(stride=1), convnet(stride=1)
    x = noise(2, 3, 24, 32)
    with eval(theirs, {**vars(peers), "model": model}) as extractor:
        expected = extractor([1, 1], model(x), normalized=False)[0].detach()
    mine = eval(ours, {"hm": hm, "lens": hm.Lens(own), "x": x}).raw.clamp(min=0)
    assert expected.max() > 0
    assert (mine - expected).abs().max() <= 1e-5 * expected.max()


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require:UserWarning")
@pytest.mark.parametrize(("theirs", "ours"), CAPTUM_ROWS)
def test_both_sides_of_the_table_for_those_who_come_from_captum_give_the_same_map(theirs: str, ours: str) -> None:
    peers = pytest.importorskip("captum.attr")
    model, own = convnet(stride=1).double(), convnet(stride=1).double()
    x = noise(2, 3, 24, 32).double()
    names = {**vars(peers), "model": model, "first": model.bend1, "second": model.bend2, "x": x.clone()}
    expected = eval(theirs, names).detach().sum(1)
    mine = eval(ours, {"hm": hm, "lens": hm.Lens(own), "x": x}).raw
    assert (mine - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_the_tables_for_those_who_come_from_elsewhere_are_read() -> None:
    assert (len(TORCH_CAM_ROWS), len(CAPTUM_ROWS)) == (5, 5)


def test_the_table_of_methods_is_the_registrys() -> None:
    costs = json.loads((DOCS / "methods.json").read_text())
    page = (DOCS / "methods.md").read_text()
    assert page == script("make_methods").page(costs), "run docs/make_methods.py"
    assert all(f"`{name}`" in page for name in METHODS)
    assert costs.keys() == {name for name, method in METHODS.items() if not method.objects}


def test_every_public_name_has_a_page() -> None:
    listed = re.findall(r"^   (hookmap\.\S+)$", (DOCS / "api" / "index.md").read_text(), re.MULTILINE)
    assert len(listed) == len({*listed})
    public = {f"hookmap.{name}" for name in hm.__all__ if not isinstance(getattr(hm, name), ModuleType)}
    for module in (analysis, metrics, report):
        public |= {f"{module.__name__}.{name}" for name in module.__all__ if callable(getattr(module, name))}
    assert public <= {*listed}
    for name in listed:
        pkgutil.resolve_name(name.replace(".", ":", 1) if name.count(".") == 1 else name)


def _longest(sentence: ast.expr) -> str:
    """Of what is written of a sentence whose names and numbers come later, the longest part."""
    parts = [
        node.value for node in ast.walk(sentence) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return max(parts, key=len, default="").strip(" ,;:(")


def _warnings() -> Iterator[str]:
    """What the code warns of, and what it says to have assumed."""
    for file in sorted((REPOSITORY / "src").rglob("*.py")):
        notes = ("note", "assumed") if file.parent.name in ("models", "transformers", "targets") else ("fault",)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                said = [node.args[0]] if name in ("remark", "warn") and node.args else []
                said += [keyword.value for keyword in node.keywords if keyword.arg in notes]
            elif isinstance(node, ast.Assign):
                name = getattr(node.targets[0], "attr", getattr(node.targets[0], "id", ""))
                said = [node.value] if name in notes else []
            else:
                continue
            yield from filter(lambda part: len(part) > 12, map(_longest, said))


def test_every_warning_is_in_troubleshooting() -> None:
    page = " ".join(re.sub(r"[*`>]", "", (DOCS / "troubleshooting.md").read_text()).split())
    said = {*_warnings()}
    assert len(said) > 20
    missing = [part for part in sorted(said) if part not in page]
    assert not missing, f"docs/troubleshooting.md doesn't have {missing}"


def test_pictures_and_pages_that_are_linked_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if "api/generated/" in target:  # written when the site is built, which looks whether links arrive
                continue
            made = re.fullmatch(r"(?:\.\./)*gallery/(?:images/sphx_glr_)?(\w+?)(?:_\d{3})?\.\w+", target)
            source = REPOSITORY / "examples" / "gallery" / f"{made[1]}.py" if made else page.parent / target
            assert source.exists(), f"{page.name} links {target}"
