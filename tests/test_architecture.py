"""The house stands as docs/architecture.md says: no circle, and no import from a lower floor to a higher one."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import hookmap as hm
from conftest import REPOSITORY

SOURCE = REPOSITORY / "src" / "hookmap"
FLOORS = [
    ("errors", "_text"),
    ("_files", "_progress", "_optional", "_nested", "_devices"),
    ("images",),
    ("hooks",),
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
    ("lens",),
    ("datasets",),
    ("runs",),
    ("analysis",),
    ("callbacks",),
    ("report",),
    ("cli",),
    ("__main__",),
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def _modules() -> dict[str, Path]:
    paths = {path: path.relative_to(SOURCE).with_suffix("").parts for path in SOURCE.rglob("*.py")}
    return {".".join(p for p in parts if p != "__init__"): path for path, parts in paths.items()}


def _imports(path: Path, modules: dict[str, Path]) -> set[str]:
    """What a module imports of hookmap, inside functions and for type checks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hookmap":
            home = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{home}.{alias.name}".strip(".")
                found.add(inner if inner in modules else home)
        elif isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if a.name.split(".")[0] == "hookmap"}
    return found - {""}


def test_no_module_imports_from_a_higher_floor_and_there_are_no_circles() -> None:
    modules = _modules()
    graph = {name: _imports(path, modules) for name, path in modules.items() if name}
    upward = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if FLOOR[other.split(".")[0]] > FLOOR[name.split(".")[0]]
        or (FLOOR[other.split(".")[0]] == FLOOR[name.split(".")[0]] and other.split(".")[0] != name.split(".")[0])
    ]
    assert not upward, upward
    TopologicalSorter(graph).prepare()  # raises on a circle


def test_every_folder_of_the_source_stands_on_a_floor_and_in_the_page_about_the_architecture() -> None:
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == FLOOR.keys()
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    folders = [room for room in rooms if (SOURCE / room).is_dir()]
    assert not [room for room in folders if f"{room}/" not in page]


def test_public_names_are_what_they_say_and_come_when_first_used() -> None:
    for name in hm.__all__:
        assert getattr(hm, name) is not None
        assert name in dir(hm)
    assert {"Lens", "Heatmap", "capture", "method", "run", "methods"} <= set(hm.__all__)
