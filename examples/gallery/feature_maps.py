"""
Feature maps
============

What the channels of a layer make of a photo, the most important for the answer first: those whose absence would change
its score most.
"""

import hookmap as hm

photo = "../photos/coffee.jpg"
lens = hm.Lens("efficientnet_lite0")
maps = lens.features(photo, ["blocks.2", "blocks.4"], target="espresso")
maps["blocks.4"].grid(channels="influence", top=12, columns=6).save("influence.png")

# %%
# The same of an earlier layer, the liveliest first:

maps["blocks.2"].grid(channels="variance", top=12, columns=6).save("variance.png")

# %%
# As arrays:

print(tuple(maps["blocks.4"].maps.shape), "(B, C, h, w)")
print("the channels with the most influence:", maps["blocks.4"].select("influence", top=5))
