"""
Heatmaps without hookmap
========================

One ONNX file gives the prediction and the heatmap: the backward pass is part of its graph. Where it runs, there is
neither hookmap nor PyTorch.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import hookmap as hm

file = Path(tempfile.mkdtemp()) / "net.onnx"
hm.Lens("efficientnet_lite0").export(file, target="predicted")

# %%
# From here on it is ONNX Runtime, NumPy and Pillow alone. The file says itself how pictures are prepared, and what its
# classes are called.

session = onnxruntime.InferenceSession(str(file))
about = json.loads(session.get_modelmeta().custom_metadata_map["hookmap"])
way = about["preprocessing"]
height, width = way["size"]


def prepared(path):
    """The shorter side resized, and the middle taken."""
    photo = Image.open(path).convert("RGB")
    scale = way["resize"] / min(photo.size)
    photo = photo.resize([int(side * scale) for side in photo.size], Image.Resampling[way["interpolation"].upper()])
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))


photos = [prepared(f"../photos/{name}.jpg") for name in ("cat", "coffee")]
pixels = np.stack([np.asarray(photo, np.float32) for photo in photos]) / 255
x = (pixels - np.float32(way["mean"])) / np.float32(way["std"])
prediction, heatmap = session.run(["prediction", "heatmap"], {"input": x.transpose(0, 3, 1, 2)})

for scores in prediction:
    print(about["labels"][scores.argmax()])
print(about["method"], "at", *about["layers"], "for", len(photos), "pictures:", heatmap.shape)

# %%
# A heatmap has the grid of its layer; whoever draws it resizes it. Here light falls on what the network saw.

shown = Image.new("RGB", (2 * width * len(photos), height))
for number, (photo, values) in enumerate(zip(photos, heatmap[:, 0], strict=True)):
    light = Image.fromarray(np.uint8(255 * values / values.max())).resize(photo.size, Image.Resampling.BICUBIC)
    dark = photo.convert("L").point(lambda grey: grey // 4).convert("RGB")
    shown.paste(photo, (2 * width * number, 0))
    shown.paste(Image.composite(photo, dark, light), (2 * width * number + width, 0))
shown.save("seen.png")
