"""A video explained frame by frame, or clip by clip, as a film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hookmap._files import keep_inputs
from hookmap.attribution.batch import Plan
from hookmap.attribution.engine import Engine, Failure
from hookmap.attribution.explain import explain_each
from hookmap.errors import TargetError
from hookmap.images.video import Video, clip_length
from hookmap.render.film import LARGEST, check_film, film, frame_size
from hookmap.render.look import LookOptions
from hookmap.results.film import Reel, Shot, shots_of


def explain_film(
    engine: Engine,
    video: Video,
    path: Path,
    plan: Plan,
    *,
    size: int | None,
    batch_size: int,
    look: LookOptions,
) -> Path:
    """Write a film of a video's frames with their heatmaps over them.

    The video is read twice: first every frame is explained and its map put aside, on disk; then, when the scale that
    suits the whole film is known, the frames are drawn. So a colour means the same from beginning to end, and nothing
    flickers because a frame's own strongest place is weak.

    Args:
        engine: of the model.
        video: what is explained.
        path: of the film.
        plan: what is asked of every frame; one in which it isn't found (nothing was detected) is shown as it is.
        size: the longer side of each picture; by default that of the video, up to 1280 pixels, in a GIF 480.
        batch_size: frames per forward pass.
        look: what is to be drawn otherwise than the methods say.

    Raises:
        TargetError: if what is asked is found in no frame.
        HookmapError: if the place can't be written; nothing half-written is left.
    """
    check_film(path)
    keep_inputs([video.path], [path])
    if video.sound:
        engine.remark(f"the sound of {video.path.name} is left out: the film is silent")
    with Reel() as reel:
        done = plan.track("frames explained", video.count)
        for shots in _shots(engine, video, plan, batch_size, look):
            reel.add(shots)
            done(1)
        # Several side by side share a screen.
        longer = size or (min(max(video.size), LARGEST // reel.columns) if reel.columns > 1 else None)
        panel = frame_size(video.size, path, longer)
        done = plan.track("frames drawn", len(reel))
        with film(path, video.rate / video.every) as add:
            for frame, shots in zip(video.frames(), reel, strict=False):  # the last clip was filled up
                add(reel.drawn(frame.picture.pixels, shots, panel), frame.time - video.start)
                done(1)
    return path


def _shots(engine: Engine, video: Video, plan: Plan, batch_size: int, look: LookOptions) -> Iterator[Sequence[Shot]]:
    """What is shown over each frame."""
    length, missed, found = clip_length(engine.model) or 1, None, False
    for answer in explain_each(engine, video, plan, batch_size=batch_size, on_error="skip"):
        if not isinstance(answer, Failure):
            found = True
            yield from shots_of(answer, look)
        elif isinstance(answer.error, TargetError):
            missed = missed or answer.error
            yield from [[]] * length
        else:
            raise answer.error
    if missed is not None and not found:
        raise missed
