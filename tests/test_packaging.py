"""What is said of the project where it is published."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import hookmap as hm
from pictures import REPOSITORY

HOME = "https://github.com/us/it"


def test_the_package_page_leads_to_files_of_this_version(tmp_path: Path) -> None:
    (tmp_path / "packaging").mkdir()
    for name in ("README.md", "pyproject.toml", "packaging/addresses.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    subprocess.run([sys.executable, tmp_path / "packaging" / "addresses.py", f"{HOME}/", "v1.0"], check=True)
    links = re.findall(r"\]\(([^)]+)\)", (tmp_path / "README.md").read_text())
    assert len(links) > 30
    for link in links:
        kind, file = re.fullmatch(rf"{HOME}/(raw|blob)/v1\.0/([^#]+)(?:#.*)?", link).groups()
        assert (REPOSITORY / file).is_file()
        assert (kind == "raw") == (Path(file).suffix in (".webp", ".jpg", ".png"))
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Source"] == HOME
    before = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {key: value for key, value in project.items() if key != "urls"} == before


def test_every_place_names_this_version() -> None:
    recipe = (REPOSITORY / "packaging" / "conda" / "recipe.yaml").read_text()
    assert re.search(r'^  version: "(.+)"$', recipe, re.MULTILINE)[1] == hm.__version__
    assert re.search(r"^## ([\d.]+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == hm.__version__
