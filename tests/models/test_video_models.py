"""Video classifiers of transformers: clips with channels first, maps over time and place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import hookmap as hm
from hookmap import models
from hookmap.images.loading import load
from hookmap.layers.layouts import Layout
from hookmap.models.transformers.processing import read
from library_models import photos, snapshot, unchanged
from networks import noise
from tiny_transformers import model

FAMILIES = {
    "videomae": ("videomae", "tokens 4x4x4"),
    "vivit": ("vivit.layers.2.layernorm_before", "tokens 1+4x4x4"),
    "timesformer": ("timesformer.encoder.layer.2.layernorm_before", "8 frames of tokens 1+4x4"),
    "v-jepa 2": ("vjepa2.encoder", "tokens 4x4x4"),
}


def slope(gradient: Tensor) -> Tensor:
    """Gradients ``(N, C, t, h, w)`` as maps, each channel with a weight of its own."""
    return torch.einsum("ncthw,c->nthw", gradient, torch.linspace(-1, 2, gradient.shape[1]))


def logits(net: Any, x: Tensor) -> Tensor:
    """Of a clip ``(B, C, T, H, W)``, as the library calls it."""
    given: Tensor = net(x.transpose(1, 2)).logits
    return given


def places(name: str, tensor: Tensor) -> Tensor:
    """What the default layer holds of one clip, ``(t, h, w, C)``, as the model's own code orders it."""
    if name == "timesformer":  # (t, 1 + h * w, C)
        return tensor[:, 1:].reshape(8, 4, 4, -1)
    tokens = tensor[0, 1:] if name == "vivit" else tensor[0]
    return tokens.reshape(4, 4, 4, -1)


def by_hand(net: nn.Module, layer: str, x: Tensor, index: int) -> Tensor:
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        kept.append(output if isinstance(output, Tensor) else output[0])

    handle = net.get_submodule(layer).register_forward_hook(keep)
    score = logits(net, x)[0, index]
    handle.remove()
    return torch.autograd.grad(score, kept[0])[0]


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.filterwarnings("ignore:the heatmap of 'class 3'")  # nothing speaks for it, here and there
@pytest.mark.parametrize("name", FAMILIES)
def test_clips_are_explained_where_the_last_attention_begins(name: str) -> None:
    net = model(name)
    before = snapshot(net)
    lens, clips = hm.Lens(net), noise(2, 3, 8, 32, 32)
    layer, layout = FAMILIES[name]
    assert lens.engine.default_layers(clips) == [layer]
    assert str(lens.engine.trace(clips).layout(layer)) == layout
    with torch.no_grad():
        wanted = logits(net, clips)
    mine = lens.predict(clips)
    assert [p[0].index for p in mine] == wanted.argmax(1).tolist()
    assert [p[0].score for p in mine] == pytest.approx(wanted.amax(1).tolist(), abs=1e-4)
    found = lens.explain(clips, 3, method=["gradcam", slope])
    cells = (8 if name == "timesformer" else 4, 4, 4)
    for b, (cam, mine_too) in enumerate(zip(found[::2], found[1::2], strict=True)):
        assert cam.raw.shape == cells
        assert cam.map.shape == (cells[0], 32, 32)
        assert cam.raw.isfinite().all()
        assert cam.raw.std() > 0
        gradient = places(name, by_hand(net, layer, clips[b : b + 1], 3))
        expected = slope(gradient.permute(3, 0, 1, 2)[None])[0]
        assert torch.allclose(mine_too.raw, expected, atol=1e-4 * float(expected.abs().max()))
        assert expected.abs().max() > 0
    assert unchanged(net, before)


def planted(name: str) -> tuple[Any, Tensor, Tensor]:
    """A model, a clip with a bright square that moves, and the cells where it is, on the model's grid of tokens.

    All patches are alike but for what is in them, only the last attention moves anything, and that evenly. Class 1 is
    what the square adds to what the classifier reads; so it speaks for it, and everything else is one and the same.
    """
    net = model(name)
    for key, parameter in net.named_parameters():
        last = "layer.2." in key or "layers.2." in key
        mixes = key.endswith((".attention.output.dense.weight", ".attention.o_proj.weight")) and "temporal" not in key
        silent = ("output.dense.weight", "o_proj.weight", "fc2.weight", "temporal_dense.weight", "_embeddings")
        even = ("query.weight", "key.weight", "q_proj.weight", "k_proj.weight")
        if (key.endswith(silent) and not (last and mixes)) or key.endswith(even):
            nn.init.zeros_(parameter)
        if key.endswith("qkv.weight"):
            nn.init.zeros_(parameter.data[: 2 * parameter.shape[1]])
    if name == "videomae":
        net.videomae.embeddings.position_embeddings.zero_()
    clip, where = torch.zeros(1, 3, 8, 32, 32), torch.zeros(8, 4, 4, dtype=torch.bool)
    for frame, (down, across) in {2: (0, 3), 3: (0, 3), 4: (1, 2), 5: (1, 2)}.items():
        clip[0, :, frame, 8 * down : 8 * down + 8, 8 * across : 8 * across + 8] = 2
        where[frame, down, across] = True
    read: list[Tensor] = []
    with net.classifier.register_forward_pre_hook(lambda _, args: read.append(args[0])), torch.no_grad():
        logits(net, clip)
        logits(net, torch.zeros_like(clip))
        net.classifier.weight[1] = (read[0] - read[1])[0]
    return net, clip, where if name == "timesformer" else where[::2]


@pytest.mark.filterwarnings("ignore:the map at timesformer.* shows 45% of what passes there:hookmap.HookmapWarning")
@pytest.mark.parametrize("name", ["videomae", "vivit", "timesformer"])
def test_a_bright_square_is_found_in_its_place_and_time(name: str) -> None:
    net, clip, where = planted(name)
    with torch.no_grad():
        assert logits(net, clip)[0, 1] > logits(net, torch.zeros_like(clip))[0, 1] + 1e-3
    for method in ("gradcam", "hirescam", "layercam"):
        (found,) = hm.Lens(net).explain(clip, 1, method=method)
        outside, inside = found.raw[~where], found.raw[where]
        gap = float(inside.min() - outside.max())
        assert gap > 0
        assert outside.max() - outside.min() < 1e-3 * gap
        assert inside.max() - inside.min() < 1e-3 * gap
    # On the frames, too: the middle of the brightest frame's map is where the square is.
    bright = found.map[2 if name == "timesformer" else 1]
    assert divmod(int(bright.argmax()), 32)[0] < 8
    assert divmod(int(bright.argmax()), 32)[1] >= 24


def test_a_finite_difference_in_one_frame_confirms() -> None:
    net = model("timesformer").double()
    layer, _ = FAMILIES["timesformer"]
    clip = noise(1, 3, 8, 32, 32).double()
    time, down, across = 5, 1, 3
    direction = noise(24).double()

    def moved(by: float) -> float:
        def move(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[time, 1 + 4 * down + across] += by * direction
            return output

        with net.get_submodule(layer).register_forward_hook(move), torch.no_grad():
            return float(logits(net, clip)[0, 2])

    def along(gradient: Tensor) -> Tensor:
        return torch.einsum("ncthw,c->nthw", gradient, direction)

    (found,) = hm.Lens(net).explain(clip, 2, method=along)
    there = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert float(found.raw[time, down, across]) == pytest.approx(there, rel=1e-6)


def test_ablation_replays_whole_sequences() -> None:
    net, clip, where = planted("vivit")
    (found,) = hm.Lens(net).explain(clip, 1, method="ablationcam")
    assert found.raw[where].min() > found.raw[~where].max()
    net, clip, where = planted("timesformer")
    lens = hm.Lens(net)
    (found,) = lens.explain(clip, 1, "timesformer.encoder.layer.1", method="ablationcam")
    outside = found.raw[~where]
    assert outside.max() - outside.min() < 1e-3 * (found.raw[where].mean() - outside.mean()).abs()
    with pytest.raises(hm.LayerError, match="8 frames of tokens 1.4x4 can't be replayed; pass a layer that holds a cl"):
        lens.explain(clip, 1, method="ablationcam")


def test_frames_may_stand_last_or_be_samples() -> None:
    last = Layout("tokens", (2, 3, 5), prefix=1, frames="last")
    tokens = noise(4, 31, 7)
    grid = last.to_grid(tokens)
    assert grid.shape == (4, 7, 2, 3, 5)
    assert torch.equal(grid[3, :, 1, 2, 4], tokens[3, 1 + (2 * 5 + 4) * 2 + 1])
    assert torch.equal(last.from_grid(grid, tokens[:1])[:, 1:], tokens[:, 1:])
    batch = Layout("tokens", (2, 3, 5), prefix=1, frames="batch")
    folded = noise(6, 4 * 2, 16, 7)  # leading axes are kept
    grid = batch.to_grid(folded)
    assert grid.shape == (6, 4, 7, 2, 3, 5)
    assert torch.equal(grid[5, 3, :, 1, 2, 4], folded[5, 3 * 2 + 1, 1 + 2 * 5 + 4])
    with pytest.raises(hm.LayerError, match="doesn't fit the layout 2 frames of tokens 1.3x5"):
        batch.to_grid(noise(3, 16, 7))


def test_what_is_no_clip_is_refused(cat: Path) -> None:
    lens = hm.Lens(model("timesformer"), preprocessing=hm.Preprocessing(size=(32, 32), resize=(32, 32)))
    with pytest.raises(
        hm.ImageError, match=r"sees clips \(B, C, T, H, W\).*shape \(1, 8, 3, 32, 32\).*transpose\(1, 2"
    ):
        lens.predict(noise(1, 8, 3, 32, 32))
    with pytest.raises(
        hm.ImageError, match=r"an input of shape \(1, 3, 32, 32\) came; pass frames of the video as one"
    ):
        lens.predict(noise(1, 3, 32, 32))
    with pytest.raises(hm.ImageError, match=r"sees clips of 8 frames; pass a hookmap\.Video, or frames"):
        lens.predict(cat)


PROCESSED = {
    "videomae": hf.VideoMAEImageProcessorPil(),
    "vivit": hf.VivitImageProcessor(),
    "videomae video": hf.VideoMAEVideoProcessor(),
    "vivit video": hf.VivitVideoProcessor(),
    "timesformer video": hf.TimesformerVideoProcessor(),
    "v-jepa 2 video": hf.VJEPA2VideoProcessor(),
}


@pytest.mark.parametrize("name", PROCESSED)
def test_a_frame_is_preprocessed_as_the_processor_does_it(name: str, cat: Path) -> None:
    mine, exact = read(PROCESSED[name]), not name.endswith("video")
    for photo in photos(cat):
        x, _ = mine(load(photo))
        given = PROCESSED[name]([photo], return_tensors="pt")
        theirs = given.get("pixel_values", given.get("pixel_values_videos"))[0, 0]
        assert x.shape == theirs.shape
        # Video processors resize by another backend: it differs by roundings of a grey level.
        levels = (x - theirs).abs() * torch.tensor(mine.std)[:, None, None] * 255
        assert levels.max() < (1e-2 if exact else 12)
        assert levels.mean() < 0.6


def test_a_folder_brings_labels_and_how_frames_are_shown(tmp_path: Path, cat: Path) -> None:
    net = model("v-jepa 2")
    net.config.id2label = {i: f"doing {i}" for i in range(5)}
    net.save_pretrained(tmp_path)
    processor = hf.VJEPA2VideoProcessor(crop_size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    lens = hm.Lens(str(tmp_path), device="cpu")
    frames = [np.full((40, 40, 3), 25 * i, np.uint8) for i in range(8)]
    clip = processor(frames, return_tensors="pt")["pixel_values_videos"].transpose(1, 2)
    assert clip.shape == (1, 3, 8, 32, 32)
    assert lens.predict(clip)[0][0].label.startswith("doing")
    assert lens.explain(clip)[0].map.shape == (4, 32, 32)
    shown = lens.preprocessing.undo(clip[0, :, 4])
    assert shown.min() == shown.max() == 100
    assert models.describe(model("videomae")).preprocessing.size == (32, 32)


def test_features_of_all_layers_that_hold_whole_clips() -> None:
    net = model("timesformer")
    clip = noise(2, 3, 8, 32, 32)
    found = hm.Lens(net).features(clip, layers="all", target=0)
    assert found["timesformer.encoder.layer.1"].maps.shape == (2, 24, 8, 4, 4)
    assert found["timesformer.encoder.layer.2.layernorm_before"].maps.shape == (2, 24, 8, 4, 4)
    # One module that runs in time, in space and on everything has no one layout.
    assert "timesformer.encoder.layer.1.drop_path" not in list(found)
