"""Frames of video files: upright, at their own times, or a sentence why not."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import hookmap as hm
from videos import Pixels, quarters, write_video

pytest.importorskip("av", reason="PyAV reads videos: pip install 'hookmap[video]'")


def grey(value: int) -> Pixels:
    return np.full((48, 64, 3), value, np.uint8)


STEPS = [grey(value) for value in range(20, 240, 20)]


def numbers(video: hm.Video) -> list[int]:
    """Which of the grey steps each frame is."""
    return [round(float(picture.pixels.mean()) / 20) - 1 for picture in video]


def test_frames_come_in_order_and_again(tmp_path: Path) -> None:
    video = hm.Video(write_video(tmp_path / "steps.mp4", STEPS))
    assert numbers(video) == [*range(11)] == numbers(video)
    assert (video.size, video.count, video.rate, video.sound) == ((48, 64), 11, 10, False)
    assert [frame.time for frame in video.frames()] == [Fraction(n, 10) for n in range(11)]
    assert [picture.name for picture in video][3] == "steps 0:00.30"


@pytest.mark.parametrize("ending", ["mp4", "webm", "mkv", "mov"])
def test_containers(tmp_path: Path, ending: str) -> None:
    codec = "libvpx-vp9" if ending == "webm" else "libx264"
    assert numbers(hm.Video(write_video(tmp_path / f"steps.{ending}", STEPS, codec=codec))) == [*range(11)]


def test_every_so_many_of_a_part(tmp_path: Path) -> None:
    path = write_video(tmp_path / "steps.mp4", STEPS)
    video = hm.Video(path, every=3, start=0.2, end=0.9)
    assert numbers(video) == [2, 5, 8]
    assert video.count == 3
    assert numbers(hm.Video(path, start=0.55)) == [6, 7, 8, 9, 10]


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0, 40, 200, 260, 900]
    video = hm.Video(write_video(tmp_path / "phone.mp4", STEPS[:5], milliseconds=times))
    assert [round(1000 * frame.time) for frame in video.frames()] == times


# A display matrix (a, b, c, d) shows (x, y) at (ax + cy, bx + dy).
TURNS = {
    "as it lies": ((1, 0, 0, 1), lambda pixels: pixels),
    "clockwise": ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
    "counterclockwise": ((0, -1, 1, 0), lambda pixels: np.rot90(pixels)),
    "upside down": ((-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
    "transposed": ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", TURNS)
def test_frames_are_upright_as_players_show_them(tmp_path: Path, name: str) -> None:
    matrix, turned = TURNS[name]
    video = hm.Video(write_video(tmp_path / "phone.mp4", [quarters()] * 2, matrix=matrix))
    expected, shown = turned(quarters()), next(iter(video)).pixels
    assert shown.shape == expected.shape
    assert video.size == expected.shape[:2]
    inner = np.s_[4:-4:8, 4:-4:8]  # away from edges, where colours bleed
    assert np.abs(shown[inner].astype(int) - expected[inner]).max() < 40


def test_a_gif_lies_over_white(tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.fromarray(np.uint8([[[0, 0, 0, 0]] * 8, [[200, 0, 0, 255]] * 8]).repeat(8, 0)) for _ in range(2)]
    frames[1].putpixel((0, 15), (0, 200, 0, 255))
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:], duration=100, disposal=2)
    shown = next(iter(hm.Video(tmp_path / "moves.gif"))).pixels
    assert shown[2, 4].tolist() == [255, 255, 255]
    assert shown[12, 4].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "isn't a whole video in a format that FFmpeg reads"),
        (b"hello", "isn't a whole video"),
        (None, r"none\.mp4 can't be read \(No such file"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "a whole video"),
    ],
)
def test_what_is_no_video_is_said(tmp_path: Path, data: bytes | None, sentence: str) -> None:
    path = tmp_path / "none.mp4"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(hm.ImageError, match=sentence):
        hm.Video(path)


def test_half_a_video_is_said(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", STEPS).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(hm.ImageError, match="get a whole copy of it, or convert it to MP4"):
        hm.Video(tmp_path / "half.mp4")


def test_sound_alone_and_folders_are_said(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(hm.ImageError, match="holds no pictures that can be decoded"):
        hm.Video(tmp_path / "song.mp4")
    with pytest.raises(hm.ImageError, match="is no file; pass the path of one video"):
        hm.Video(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, "every is 0; expected a whole number of frames"),
        ({"start": -1.0}, r"start is -1\.0; expected seconds"),
        ({"start": 2.0, "end": 1.0}, "start is 2 and end is 1"),
        ({"start": 60.0}, "has no frames there: it is 1.1 s long"),
    ],
)
def test_parts_that_there_are_not(tmp_path: Path, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(hm.ImageError, match=sentence):
        hm.Video(write_video(tmp_path / "steps.mp4", STEPS), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrap", [lambda path: path, lambda path: [path]])
def test_a_video_is_no_photo(tmp_path: Path, wrap: object) -> None:
    path = write_video(tmp_path / "clip.mp4", STEPS)
    given: str | Sequence[str] = wrap(str(path))  # type: ignore[operator]
    with pytest.raises(hm.ImageError, match=r"clip\.mp4 is a video; pass hookmap\.Video"):
        hm.Lens().predict(given)


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
def test_a_lens_sees_frame_by_frame(tmp_path: Path) -> None:
    lens, video = hm.Lens(), hm.Video(write_video(tmp_path / "clip.mp4", [quarters(), grey(128)]))
    together = lens.explain(video, 3)
    alone = [lens.explain(picture, 3)[0] for picture in video]
    assert together.images == ["clip 0:00.00", "clip 0:00.10"]
    for heatmap, other in zip(together, alone, strict=True):
        assert (heatmap.raw - other.raw).abs().max() <= 1e-4 * other.raw.abs().max()
