"""Importing hookmap costs little more than importing torch."""

from __future__ import annotations

import subprocess
import sys

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


def test_public_names_and_their_parameters_change_on_purpose_only() -> None:
    assert FILE.read_text() == listed(), "if this is meant: python tests/signatures.py"
