"""The pages that are written from the code say what the code says."""

from __future__ import annotations

import importlib.util
import json
import re

from hookmap.methods import METHODS
from pictures import REPOSITORY

DOCS = REPOSITORY / "docs"


def test_the_table_of_methods_is_the_registrys() -> None:
    spec = importlib.util.spec_from_file_location("make_methods", DOCS / "make_methods.py")
    make_methods = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_methods)
    costs = json.loads((DOCS / "methods.json").read_text())
    page = (DOCS / "methods.md").read_text()
    assert page == make_methods.page(costs), "run docs/make_methods.py"
    assert all(f"`{name}`" in page for name in METHODS)
    assert costs.keys() == {name for name, method in METHODS.items() if not method.objects}


def test_pictures_and_pages_that_are_linked_exist() -> None:
    for page in (REPOSITORY / "README.md", *DOCS.glob("**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links {target}"
