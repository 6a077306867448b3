"""Importing hookmap costs little more than importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hookmap as hm
from signatures import FILE, listed

HEAVY = [
    "PIL",
    "matplotlib",
    "open_clip",
    "rich",
    "tensorboard",
    "timm",
    "torch._dynamo",
    "torchvision",
    "transformers",
]


def test_importing_loads_nothing_that_is_not_needed_yet() -> None:
    code = f"import torch; before = set({HEAVY}) & set(__import__('sys').modules); import hookmap, sys; "
    code += f"print(sorted(set({HEAVY}) & set(sys.modules) - before))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GradCAM", r"methods go by name: lens\.explain\(image, method='gradcam'\)"),
        ("Layer_CAM", "method='layercam'"),
        ("Hetmap", r"did you mean Heatmap\?"),
        ("zebra", r"dir\(hookmap\) lists what it has"),
    ],
)
def test_a_name_that_is_not_there_is_said_with_what_may_be_meant(name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=f"hookmap has no {name!r}; .*{meant}"):
        getattr(hm, name)


def test_public_names_and_their_parameters_change_on_purpose_only() -> None:
    assert FILE.read_text() == listed(), "if this is meant: python tests/signatures.py"
