"""Whatever is made of a photo isn't written over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

import hookmap as hm
from answering_models import built
from hookmap.images.loading import Picture
from hookmap.results.words import Word, WordEvidence
from videos import write_video

Saved = Callable[[Path], object]


@pytest.fixture(scope="module")
def vit() -> hm.Lens:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=48, embed_dim=24, depth=2, num_heads=2, num_classes=5)
    return hm.Lens(model.eval(), labels=list("abcde"))


def words(photo: Path) -> WordEvidence:
    picture = Picture(np.zeros((8, 8, 3), np.uint8), "photo.png", photo)
    return WordEvidence("cat", (Word("cat", 0, 0.3, 0.0, 0.0, ""),), 0.3, 0.0, True, picture, "a model")


SAVES: dict[str, Callable[[hm.Lens, hm.Lens, Path], Saved]] = {
    "heatmap": lambda lens, vit, photo: lens.explain(photo)[0].save,
    "explanation": lambda lens, vit, photo: lens.explain(photo, ["tabby", "lynx"]).save,
    "difference": lambda lens, vit, photo: hm.difference(*lens.explain(photo, ["tabby", "lynx"])).save,
    "concepts": lambda lens, vit, photo: lens.concepts(photo, concepts=2).save,
    "features": lambda lens, vit, photo: lambda place: lens.features(photo, ["bn2"]).save(place.parent, progress=False),
    "attention": lambda lens, vit, photo: vit.attention(photo).save,
    "attention distance": lambda lens, vit, photo: vit.attention_distances(photo).save,
    "attention rollout": lambda lens, vit, photo: vit.attention_rollout(photo).save,
    "logit lens": lambda lens, vit, photo: vit.logit_lens(photo).save,
    "words": lambda lens, vit, photo: words(photo).save,
    "view": lambda lens, vit, photo: lambda place: lens.save_view(photo, place, progress=False),
    "answer": lambda lens, vit, photo: (
        lambda place: (
            hm.Lens(built("llava")).ask(photo, "what ?", answer="the man", progress=False).save(place, ["man"])
        )
    ),
}


@pytest.mark.parametrize("what", SAVES)
def test_a_photo_isnt_written_over(lens: hm.Lens, vit: hm.Lens, cat: Path, tmp_path: Path, what: str) -> None:
    photo = tmp_path / "photo.png"
    shutil.copy(cat, photo)
    save = SAVES[what](lens, vit, photo)
    with pytest.raises(hm.HookmapError, match=r"photo\.png would be written over .*photo\.png"):
        save(photo)
    assert photo.read_bytes() == cat.read_bytes()
    assert list(tmp_path.iterdir()) == [photo]


def test_a_video_isnt_written_over_by_its_film(lens: hm.Lens, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV reads and writes videos: pip install 'hookmap[video]'")
    video = write_video(tmp_path / "clip.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 2)
    before = video.read_bytes()
    with pytest.raises(hm.HookmapError, match=r"clip\.mp4 would be written over"):
        lens.film(video, video, progress=False)
    assert video.read_bytes() == before
