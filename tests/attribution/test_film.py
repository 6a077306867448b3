"""Films of heatmaps: one scale from beginning to end, each frame at its own time, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from detectors import Bright, Squares
from hookmap.images.geometry import Geometry
from hookmap.render.look import Look
from hookmap.results.film import Reel, Shot
from videos import Pixels, write_video

pytest.importorskip("av", reason="PyAV reads and writes videos: pip install 'hookmap[video]'")


class Redness(nn.Module):
    """One class, whose evidence at each place is how red it is there."""

    def __init__(self) -> None:
        super().__init__()
        self.red = nn.Conv2d(3, 1, 8, 8, bias=False)
        with torch.no_grad():
            self.red.weight.zero_()[:, 0] = 1 / 64

    def forward(self, x: Tensor) -> Tensor:
        return self.red(x).mean((2, 3)).repeat(1, 2)


PLAIN = hm.Preprocessing(size=(64, 64), resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)


def patch(red: int, left: int = 8) -> Pixels:
    """A red patch of this strength on black."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[16:48, left : left + 32, 0] = red
    return pixels


@pytest.fixture
def lens() -> hm.Lens:
    return hm.Lens(Redness(), preprocessing=PLAIN)


def added(film: Path, frames: list[Pixels]) -> list[float]:
    """How much green the heatmap laid over the middle of each frame's patch."""
    shown = [picture.pixels for picture in hm.Video(film)]
    assert len(shown) == len(frames)
    return [float(s[24:40, 16:32, 1].mean()) - f[24:40, 16:32, 1].mean() for s, f in zip(shown, frames, strict=True)]


def test_a_colour_means_the_same_in_all_frames(tmp_path: Path, lens: hm.Lens) -> None:
    frames = [patch(red) for red in (50, 100, 200, 200, 100, 50)]
    video = write_video(tmp_path / "clip.mp4", frames)
    alone = [np.asarray(h.overlay(size=64))[24:40, 16:32, 1].mean() for h in lens.explain(hm.Video(video), 0)]
    assert max(alone) - min(alone) < 12  # on its own scale each frame's strongest place is equally bright
    green = added(lens.film(video, tmp_path / "film.mp4", 0, look={"colormap": "Greens_r"}), frames)
    weak, middle, strong = green[0], green[1], green[2]
    assert weak + 10 < middle < strong - 10
    assert green == pytest.approx(green[::-1], abs=6)  # nor does it drift


def test_a_flash_darkens_no_film() -> None:
    geometry, look = Geometry.identity((8, 8)), Look()
    with Reel() as reel:
        for high in [1.0] * 39 + [100.0]:
            values = np.full((8, 8), high, np.float32)
            reel.add([Shot((0, 0, 0), (0, 0), values, (0.0, high), geometry, look, "")])
        span, _ = reel.scales[0, 0]
    assert span == (0.0, pytest.approx(1.0))


def test_times_and_every_so_many_th(tmp_path: Path, lens: hm.Lens) -> None:
    times = [0, 50, 300, 320, 900, 1000]
    video = write_video(tmp_path / "clip.mp4", [patch(200)] * 6, milliseconds=times)
    film = lens.film(hm.Video(video, every=2), tmp_path / "film.mp4", 0)
    assert [round(1000 * frame.time) for frame in hm.Video(film).frames()] == [0, 300, 900]
    film = lens.film(hm.Video(video, start=0.3), tmp_path / "part.mp4", 0)
    assert [round(1000 * frame.time) for frame in hm.Video(film).frames()] == [0, 20, 600, 700]


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".gif", ".mkv", ".mov"])
def test_endings(tmp_path: Path, lens: hm.Lens, ending: str) -> None:
    video = write_video(tmp_path / "clip.mp4", [patch(200, left) for left in (0, 16, 32)])
    film = hm.Video(lens.film(video, tmp_path / f"film{ending}", 0))
    assert film.size == (64, 64)
    assert [frame.time for frame in film.frames()] == [0, Fraction(1, 10), Fraction(2, 10)]
    red = [picture.pixels[16:48, :, 0].astype(float).mean(0) for picture in film]
    assert [int(np.average(np.arange(64), weights=np.maximum(r - 60, 0))) // 16 for r in red] == [0, 1, 2]


def test_several_targets_stand_side_by_side(tmp_path: Path, lens: hm.Lens) -> None:
    video = write_video(tmp_path / "clip.mp4", [patch(200)] * 2)
    film = hm.Video(lens.film(video, tmp_path / "film.mp4", [0, 1], method=["gradcam", "layercam"]))
    assert film.size == (130, 130)


def test_frames_without_the_target_are_shown_as_they_are(tmp_path: Path) -> None:
    finder = hm.Lens(Squares(Bright()), preprocessing=PLAIN, labels=["red", "green"])
    empty, full = np.full((64, 64, 3), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8)
    full[16:32, 16:32] = (255, 0, 0)
    video = write_video(tmp_path / "clip.mp4", [empty, full, empty])
    film = [picture.pixels for picture in hm.Video(finder.film(video, tmp_path / "film.mp4"))]
    changed = [np.abs(s.astype(int) - f).max() for s, f in zip(film, [empty, full, empty], strict=True)]
    assert changed[0] < 12
    assert changed[2] < 12
    assert changed[1] > 100
    nothing = write_video(tmp_path / "nothing.mp4", [empty] * 2)
    with pytest.raises(hm.TargetError):
        finder.film(nothing, tmp_path / "none.mp4")
    assert not (tmp_path / "none.mp4").exists()


class RednessOfClips(nn.Module):
    """Likewise of clips of 16 frames, in steps of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.red = nn.Conv3d(3, 1, (4, 8, 8), (4, 8, 8), bias=False)
        with torch.no_grad():
            self.red.weight.zero_()[:, 0] = 1 / 256

    def forward(self, x: Tensor) -> Tensor:
        return self.red(x).mean((2, 3, 4)).repeat(1, 2)


def test_clips_give_each_frame_the_map_of_its_step(tmp_path: Path) -> None:
    frames = [patch(200 if 4 <= n < 8 or n == 17 else 0) for n in range(18)]
    clips = hm.Lens(RednessOfClips(), preprocessing=PLAIN)
    video = write_video(tmp_path / "clip.mp4", frames)
    found = clips.explain(hm.Video(video), 0)
    assert [heatmap.raw.shape for heatmap in found] == [(4, 8, 8)] * 2
    assert (found[0].raw.amax((1, 2)) > found[0].raw.max() / 2).tolist() == [False, True, False, False]
    green = added(clips.film(video, tmp_path / "film.mp4", 0, look={"colormap": "Greens_r"}), frames)
    # The last clip has two frames, of which the second fills it up: all its steps are red.
    assert [value > 40 for value in green] == [4 <= n < 8 or n >= 16 for n in range(18)]


def test_an_interrupted_film_leaves_what_was_there(
    tmp_path: Path, lens: hm.Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "clip.mp4", [patch(200)] * 4)
    (tmp_path / "film.mp4").write_bytes(b"what was there")

    def interrupted(*_: object) -> Iterator[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Reel, "drawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lens.film(video, tmp_path / "film.mp4", 0)
    assert (tmp_path / "film.mp4").read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "film.mp4"]


def test_what_cannot_be_is_said(tmp_path: Path, lens: hm.Lens) -> None:
    video = write_video(tmp_path / "clip.mp4", [patch(200)] * 2, sound=True)
    with pytest.warns(hm.HookmapWarning, match="sound of clip.mp4 is left out"):
        lens.film(video, tmp_path / "film.mp4", 0)
    with pytest.raises(hm.HookmapError, match=r"film\.png doesn't end as a film does"):
        lens.film(video, tmp_path / "film.png", 0)
    with pytest.raises(hm.HookmapError, match="leave out check= and on_error="):
        lens.film(video, tmp_path / "film.mp4", 0, check=True)
    with pytest.raises(hm.TargetError):
        lens.film(video, tmp_path / "other.mp4", 7)
    with pytest.raises(hm.HookmapError, match="can't be written"):
        lens.film(video, "/proc/film.mp4", 0)
    with pytest.raises(hm.ImageError, match=r"Redness.* sees clips of 16 frames; pass a hookmap\.Video"):
        hm.Lens(RednessOfClips(), preprocessing=PLAIN).explain(patch(200))
