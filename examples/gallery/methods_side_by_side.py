"""
Methods side by side
====================

What methods need is taken once and shared, so a sheet of ten costs little more than one of them. The last two are no
explanations but what a good one has to beat: noise, and the photo's own edges.
"""

import hookmap as hm

lens = hm.Lens("efficientnet_lite0")
methods = ["gradcam", "hirescam", "layercam", "ablationcam", "eigencam", "random", "edges"]
sheet = lens.explain("../photos/coffee.jpg", method=methods, layer=["blocks.4", "blocks.6"])
sheet.save("sheet.png")

# %%
# Which of them to believe is a question that can be measured: :doc:`/guides/trust`. One of the sheet, by its names:

print(sheet["layercam", "blocks.6"][0])
