"""
A picture far larger than the input
===================================

The network takes the middle of a picture, at 224 x 224 pixels: what lies beside it isn't seen, and details are lost. In
tiles the whole picture is explained at its full resolution, and the maps of all tiles add up on one grid.
"""

from PIL import Image

import hookmap as hm

cat, coffee = (Image.open(f"../photos/{name}.jpg").convert("RGB").resize((600, 400)) for name in ("cat", "coffee"))
large = Image.new("RGB", (1200, 800))
for place, photo in zip(((0, 0), (600, 0), (0, 400), (600, 400)), (cat, coffee, coffee, cat), strict=True):
    large.paste(photo, place)

lens = hm.Lens("efficientnet_lite0")
lens.explain(large, "espresso").save("middle.png")

# %%
# In tiles:

lens.explain_in_tiles(large, "espresso", tile=400).save("tiles.png")
