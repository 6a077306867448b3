"""
Through the network
===================

The same question at every stage. Early layers have fine grids and know edges; late ones are coarse and know the class.
LayerCAM weights each place by its own gradient, so it can be read at all of them.
"""

from PIL import Image, ImageDraw, ImageFont

import hookmap as hm

photo = "../photos/cat.jpg"
lens = hm.Lens("efficientnet_lite0")
stages = lens.open(photo).stages
explanation = lens.explain(photo, layer=stages, method="layercam")
explanation.save("stages.png")

# %%
# As a film, from the first stage to the last, beside the feature maps that vary most:

features = lens.features(photo, stages)
frames = []
for number, heatmap in enumerate(explanation, 1):
    layer = features[heatmap.layer]
    maps = layer.grid(channels="variance", top=16, colormap="gray", numbers=False, columns=4)
    heat = heatmap.overlay(size=640, outliers=0.02)
    maps = maps.resize((heat.height, heat.height), Image.Resampling.NEAREST)
    frame = Image.new("RGB", (maps.width + heat.width + 72, heat.height + 100), "white")
    draw, middle, right = ImageDraw.Draw(frame), maps.width + 48, frame.width - 24
    _, channels, height, width = layer.maps.shape
    draw.text((24, 16), heatmap.layer, "black", ImageFont.load_default(22))
    draw.text((120, 22), f"16 of {channels} maps, {height} x {width}", "dimgray", ImageFont.load_default(15))
    draw.text((middle, 16), f"what speaks for {heatmap.target!r}", "black", ImageFont.load_default(22))
    draw.line((24, 54, right, 54), "lightgray", 3)
    draw.line((24, 54, 24 + (right - 24) * number // len(stages), 54), "black", 3)
    frame.paste(maps, (24, 70))
    frame.paste(heat, (middle, 70))
    frames.append(frame)
times = [600] * (len(frames) - 1) + [2500]
frames[0].save("film.webp", save_all=True, append_images=frames[1:], duration=times, loop=0, method=6)

# %%
# One map of several layers, their product in the manner of LayerCAM's authors:

lens.explain(photo, layer=["blocks.3", "blocks.5", "bn2"], method="layercam", fuse="layercam").save("fused.png")
