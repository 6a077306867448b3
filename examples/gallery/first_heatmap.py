"""
Why did it say that?
====================

One photo, the network that comes with hookmap, and the places that speak for its answer.
"""

import hookmap as hm

photo = "../photos/cat.jpg"
lens = hm.Lens("efficientnet_lite0")  # or any timm or torchvision name, or your own nn.Module
for prediction in lens.predict(photo, top=3)[0]:
    print(f"{prediction.label:15} {prediction.probability:.0%}")

# %%
# Nothing has to be chosen: the target is the predicted class, layer and method are found by looking at the network.
# The frame is what the network saw of the photo.

explanation = lens.explain(photo)
explanation.save("heatmap.png")

# %%
# What it holds: the map on the photo's own pixels, and on the layer's grid with its sign.

heatmap = explanation[0]
print(heatmap)
print(tuple(heatmap.map.shape), "on the photo,", tuple(heatmap.raw.shape), "on the grid of", heatmap.layer)
print("evidence:", heatmap.evidence)
