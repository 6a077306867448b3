"""
How far can I believe it?
=========================

Every heatmap looks convincing. Whether it says more than a random one can be measured: the important cells are taken
away first and last, and the map is held against itself, moved and mirrored.
"""

import hookmap as hm

photo = "../photos/coffee.jpg"
lens = hm.Lens("efficientnet_lite0")
for heatmap in lens.explain(photo, method=["layercam", "random"]):
    check = lens.check(heatmap)
    print(f"{heatmap.method.title:10} {check.word}: better than {check.percentile:.0f} of 100 random maps")

# %%
# A map that is the same for every class shows what is salient, not why the network decided.

lens.explain(photo, ["espresso", "cup", "tabby"], method=["layercam", "eigencam"]).save("classes.png")

# %%
# One heatmap is weak evidence. Which method and layer to take for a model is what :func:`hookmap.compare` finds out
# over many photos: :doc:`/guides/trust`.
