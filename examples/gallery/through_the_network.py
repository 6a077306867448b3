"""
Through the network
===================

The same question at every stage. Early layers have fine grids and know edges; late ones are coarse and know the class.
LayerCAM weights each place by its own gradient, so it can be read at all of them.
"""

import hookmap as hm

photo = "../photos/cat.jpg"
lens = hm.Lens("efficientnet_lite0")
stages = lens.open(photo).stages
explanation = lens.explain(photo, layer=stages, method="layercam")
explanation.save("stages.png")

# %%
# As a film, from the first stage to the last:

frames = [heatmap.overlay(size=640) for heatmap in explanation]
frames[0].save("film.webp", save_all=True, append_images=[*frames[1:], *frames[-1:] * 3], duration=350, loop=0)

# %%
# One map of several layers, their product in the manner of LayerCAM's authors:

lens.explain(photo, layer=["blocks.3", "blocks.5", "bn2"], method="layercam", fuse="layercam").save("fused.png")
