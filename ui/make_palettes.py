"""Write core/palettes.ts: the colour maps that the app offers, as matplotlib has them, 256 colours each in base64."""

import base64
from pathlib import Path

import numpy as np

from hookmap.render.colors import colorize

NAMES = ("inferno", "viridis", "magma", "cividis", "turbo", "jet", "gray", "RdBu_r", "PiYG")

coded = {name: base64.b64encode(colorize(np.linspace(0, 1, 256), name).tobytes()).decode() for name in NAMES}
lines = [f'  {name}: "{colors}",' for name, colors in coded.items()]
text = "// Written by make_palettes.py: matplotlib's colour maps, 256 colours each, RGB in base64.\n\n"
text += "\n".join(["export const PALETTES = {", *lines, "};\n"])
(Path(__file__).parent / "core" / "palettes.ts").write_text(text)
