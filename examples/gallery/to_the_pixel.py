"""
Down to the pixel
=================

Three ways to go finer than a layer's grid: gradients gathered on the way from a plain picture, guided backpropagation
times a heatmap, and relevance at a layer in the middle, whose account says what it left out.
"""

import hookmap as hm

photo = "../photos/cat.jpg"
lens = hm.Lens("efficientnet_lite0")
lens.explain(photo, method="integratedgradients", budget=32).save("integrated.png")

# %%
# Relevance: the score shared out, layer by layer, by rules. What is signed shows what speaks against, too.

relevance = lens.explain(photo, method="lrp", layer="blocks.3", part="signed")
relevance.save("relevance.png")
print(relevance[0].caveat or "the account closes")
