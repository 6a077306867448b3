"""Where heatmaps put their energy: in the object, and, of four photos in one, in the one that is asked about.

    python benchmarks/objects.py MODEL PHOTOS SEGMENTER.onnx [COUNT]

MODEL is a name or folder for ``hookmap.Lens``, PHOTOS a folder, SEGMENTER.onnx a salient-object segmenter such as
U2-Netp (input 320x320, its first output the mask). Photos whose object covers 5 to 60 per cent of what the model sees
count. Printed are, for each method and layer, the mean over photos of

- *object*: the share of positive evidence in the object over the object's share of the area; 1 is chance;
- *own*: on mosaics of four photos, the share of positive evidence in the photo whose class is asked; .25 is chance;
- *alike*: the correlation of the maps of a mosaic for the classes of two of its photos; 1 knows no class.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx2torch
import torch
from PIL import Image
from torch.nn import functional as F

import hookmap as hm


def ways(lens: hm.Lens) -> dict[str, dict[str, object]]:
    """What is compared: keyword arguments of explain by name."""
    layers = [layer.name for layer in lens.layers() if layer.kind.endswith(("Layer", "Block")) and layer.layout]
    last = layers[-1]
    found: dict[str, dict[str, object]] = {"the default": {}}
    found["gradientattention, last"] = {"method": "gradientattention", "layer": last}
    found["gradientattention, last 3"] = {"method": "gradientattention", "layer": layers[-3:], "fuse": "sum"}
    for method in ("gradcam", "hirescam", "layercam", "valuepath"):
        for name in (f"{last}.norm1", layers[len(layers) // 2], layers[2 * len(layers) // 3]):
            found[f"{method}, {name}"] = {"method": method, "layer": name}
    for method in ("chefer", "legrad", "inputxgradient", "integratedgradients"):
        found[method] = {"method": method}
    found |= {f"{name}, libra": {**how, "libra": True} for name, how in found.items()}
    found["attention, last"] = {"method": "attention", "layer": last}
    for method in ("lrp", "attnlrp"):
        for name in (f"{last}.norm1", layers[2 * len(layers) // 3]):
            found[f"{method}, {name}"] = {"method": method, "layer": name}
    for method in ("rollout", "lrppixels", "gaussian", "edges", "random"):
        found[method] = {"method": method}
    return found


def masks(photos: list[Path], segmenter: Path) -> list[tuple[Path, torch.Tensor]]:
    """Photos, as the middle 224 pixels of the shorter side at 256, and where their object is, ``(224, 224)``."""
    network = onnx2torch.convert(onnx.load(segmenter)).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    found = []
    for path in photos:
        x = torch.from_numpy(np.asarray(middle(path).resize((320, 320), Image.Resampling.BICUBIC)).copy()).float()
        x = x / x.amax().clamp(min=1)
        with torch.no_grad():
            mask = network(((x - mean) / std).permute(2, 0, 1)[None])[0]
        mask = F.interpolate(mask, (224, 224), mode="bilinear")[0, 0]
        mask = (mask - mask.min()) / (mask.max() - mask.min()) > 0.5
        if 0.05 < float(mask.float().mean()) < 0.6:
            found.append((path, mask))
    return found


def middle(path: Path) -> Image.Image:
    """What a model sees of a photo."""
    with Image.open(path) as opened:
        photo = opened.convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
    return photo.crop((left, top, left + 224, top + 224))


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    model, folder, segmenter = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 50
    lens = hm.Lens(model, fit="stretch")  # nothing is cut off: the middle is taken here, so that masks lie on it
    photos = sorted([*folder.glob("*.jpg"), *folder.glob("*.JPEG")])
    step = max(1, len(photos) // (2 * count))
    looked = masks(photos[step // 2 :: step], segmenter)[:count]
    asked = ways(lens)
    share: dict[str, list[float]] = {name: [] for name in asked}
    own: dict[str, list[float]] = {name: [] for name in asked}
    alike: dict[str, list[float]] = {name: [] for name in asked}
    predicted = {}
    for path, mask in looked:
        x = middle(path)
        predicted[path] = lens.predict(x)[0][0].index
        for name, keywords in asked.items():
            heatmap = lens.explain(x, predicted[path], progress=False, **keywords)[0]
            found = float(hm.metrics.energy(heatmap.map[None], mask)[0] / mask.float().mean())
            share[name].append(found if np.isfinite(found) else 1.0)  # no evidence at all finds nothing
    for number in range(0, len(looked) - 3, 4):
        four = [path for path, _ in looked[number : number + 4]]
        classes = [predicted[path] for path in four]
        whole = Image.new("RGB", (448, 448))
        for place, path in enumerate(four):
            whole.paste(middle(path), (224 * (place % 2), 224 * (place // 2)))
        x = whole.resize((224, 224), Image.Resampling.BICUBIC)
        for name, keywords in asked.items():
            maps = [lens.explain(x, index, progress=False, **keywords)[0].map for index in classes]
            for place, heat in enumerate(maps):
                cells = heat.clamp(min=0).unfold(0, 112, 112).unfold(1, 112, 112).sum((2, 3)).flatten()
                own[name].append(float(cells[place] / cells.sum()) if float(cells.sum()) > 0 else 0.25)
            pair = torch.stack([maps[0].flatten(), maps[3].flatten()])
            alike[name].append(float(torch.corrcoef(pair)[0, 1]) if float(pair.std(1).min()) > 0 else 1.0)
    print(f"{model}: {len(looked)} photos, {len(looked) // 4} mosaics, {torch.__version__}")
    for name in sorted(asked, key=lambda name: -float(np.mean(share[name]))):
        error = np.std(share[name]) / len(share[name]) ** 0.5
        print(
            f"{np.mean(share[name]):5.2f} +- {error:.2f} object  {np.mean(own[name]):.2f} own  "
            f"{np.mean(alike[name]):5.2f} alike  {name}"
        )


if __name__ == "__main__":
    main()
