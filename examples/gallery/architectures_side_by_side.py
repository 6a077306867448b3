"""
Architectures side by side
==========================

Plain convolutions, two vision transformers and an MLP-Mixer learn the same, and are asked the same. Nothing is said of
their layers, nor of where in them the picture's places are: that tokens are places is found, as it is for pixels.
"""

import numpy as np
import timm
import torch
from PIL import Image, ImageDraw
from torch import nn

import hookmap as hm

NAMES = ["red", "blue"]
COLOURS = {"red": (214, 90, 60), "blue": (70, 110, 200)}
draw = np.random.default_rng(0)


def picture(*names):
    """Discs of these colours on a noisy ground, beside each other."""
    made = Image.fromarray(draw.integers(85, 125, (64, 64, 3), dtype=np.uint8))
    for left, name in zip(draw.permutation([0, 32]), names, strict=False):
        x, y = draw.integers((left + 9, 9), (left + 24, 55))
        ImageDraw.Draw(made).ellipse((x - 7, y - 7, x + 7, y + 7), fill=COLOURS[name])
    return made


y = torch.arange(192) % 2
x = torch.stack([torch.from_numpy(np.array(picture(NAMES[k]))).permute(2, 0, 1) / 127.5 - 1 for k in y])

torch.manual_seed(0)
convolutions = []
for before, after in ((3, 16), (16, 32), (32, 64)):
    convolutions += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
tokens = {"img_size": 64, "patch_size": 8, "num_classes": 2}
networks = {
    "convolutions": nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)),
    "ViT": timm.models.VisionTransformer(
        embed_dim=32, depth=2, num_heads=4, class_token=False, global_pool="avg", **tokens
    ),
    "Swin": timm.models.SwinTransformer(embed_dim=32, depths=(2,), num_heads=(4,), window_size=4, **tokens),
    "Mixer": timm.models.MlpMixer(embed_dim=32, num_blocks=2, **tokens),
}
for network in networks.values():
    optimizer = torch.optim.AdamW(network.parameters(), 0.003)
    for some in torch.cat([torch.randperm(len(x)) for _ in range(6)]).split(16):
        loss = nn.functional.cross_entropy(network(x[some]), y[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %%
# Both colours in one picture: why the one and not the other? First where each network is asked by default. Then by
# hiding parts of the picture, which needs nothing of the inside: in the Swin transformer and the Mixer tokens have
# spoken with all others by the end, so what a late layer shows at a place didn't have to come from there.

preprocessing = hm.Preprocessing(size=(64, 64), resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)
both = picture("red", "blue")
for name, network in networks.items():
    lens = hm.Lens(network, preprocessing=preprocessing, labels=NAMES)
    why = hm.Contrast("red", "blue")
    heatmaps = [lens.explain(both, why, part="signed", method=method)[0] for method in (None, "occlusion")]
    hm.Explanation(heatmaps).save(f"{name}.png")
    print(f"{name:13} {heatmaps[0].method.name:10} {heatmaps[0].layer}")
