"""Videos on the command line: a film of each, or a sentence why not; nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hookmap as hm
from videos import quarters, write_video

pytest.importorskip("av", reason="PyAV reads and writes videos: pip install 'hookmap[video]'")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4", [np.roll(quarters(), 4 * n, 1) for n in range(6)])


def test_a_film_of_a_video(hookmap, clip: Path, tmp_path: Path) -> None:
    result = hookmap("explain", clip, "--every", "2", "--end", "0.5")
    assert result.code == 0, result.err
    assert "-> clip_heatmap.mp4" in result.out
    film = hm.Video(tmp_path / "clip_heatmap.mp4")
    assert [float(frame.time) for frame in film.frames()] == [0, 0.2, 0.4]
    assert film.size == (48, 64)


def test_one_bad_video_stops_no_other(hookmap, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(clip.read_bytes()[:500])
    result = hookmap("explain", "bad.mp4", clip, "-o", "out/", "--json")
    assert result.code == 1
    told = json.loads(result.out)
    assert [film["file"] for film in told["films"]] == ["out/clip_heatmap.mp4"]
    assert "isn't a whole video" in told["errors"][0]["error"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip_heatmap.mp4"]


def test_a_gif_that_moves_is_a_video(hookmap, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(quarters(), 8 * n, 1)) for n in range(3)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "still.gif")
    assert hookmap("explain", "moves.gif").code == 0
    assert len(list(hm.Video(tmp_path / "moves_heatmap.gif"))) == 3
    assert hookmap("explain", "still.gif").code == 0
    assert (tmp_path / "still_gradcam.png").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["clip.mp4", "cat.jpg"], "clip.mp4 is a video and cat.jpg is none; explain them in two commands"),
        (["clip.mp4", "-o", "clip.mp4"], "would be written over clip.mp4"),
        (["clip.mp4", "-o", "film.png"], "film.png doesn't end as a film does"),
        (["clip.mp4", "clip.mp4", "-o", "film.mp4"], "is one film, and 2 videos came; pass a folder: film.mp4/"),
        (["clip.mp4", "--top", "3"], "--top is for photos"),
        (["clip.mp4", "--check"], "--check is for photos"),
        (["cat.jpg", "--every", "3"], "--every chooses frames of a video, and photos came"),
        (["clip.mp4", "--start", "9"], "has no frames there: it is 0.6 s long"),
        (["clip.mp4", "-t", "nothing such"], "no class is called 'nothing such'"),
        (["none.mp4"], "none.mp4 can't be read (No such file or directory)"),
    ],
)
def test_what_cannot_be_is_said(
    hookmap, clip: Path, cat: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "cat.jpg").write_bytes(cat.read_bytes())
    before = sorted(path.name for path in tmp_path.iterdir())
    result = hookmap("explain", *arguments)
    assert result.code == 1
    assert sentence in " ".join(result.err.split())
    assert "Traceback" not in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_other_commands_take_no_videos(hookmap, clip: Path) -> None:
    result = hookmap("predict", clip)
    assert result.code == 1
    assert "is a video; pass hookmap.Video(path)" in " ".join(result.err.split())
