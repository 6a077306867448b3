"""Videos that are explained as films."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookmap._files import keep_inputs
from hookmap.cli.commands import say, shown
from hookmap.cli.files import is_folder
from hookmap.cli.options import AskOptions, FilmOptions, SpeedOptions
from hookmap.errors import HookmapError

if TYPE_CHECKING:
    from hookmap.lens import Lens


def are_videos(paths: Sequence[Path], frames: FilmOptions) -> bool:
    """Whether films are to be made: of video files, or of one picture that moves.

    Raises:
        HookmapError: if photos came too, or options of films with photos alone.
    """
    from hookmap.images.loading import VIDEOS

    videos = [path for path in paths if path.suffix.lower() in VIDEOS]
    if not videos and len(paths) == 1 and _moves(paths[0]):
        return True
    if videos and len(videos) < len(paths):
        photo = next(path for path in paths if path not in videos)
        raise HookmapError(f"{videos[0]} is a video and {photo} is none; explain them in two commands")
    if not videos and frames.given():
        raise HookmapError(f"--{next(iter(frames.given()))} chooses frames of a video, and photos came; leave it out")
    return bool(videos)


def _moves(path: Path) -> bool:
    """Whether this is a GIF of several frames."""
    from PIL import Image

    if path.suffix.lower() != ".gif":
        return False
    with suppress(Exception), Image.open(path) as image:  # what can't be read is said when it is explained
        return getattr(image, "n_frames", 1) > 1
    return False


def explain_videos(
    lens: Lens,
    paths: Sequence[Path],
    output: str | None,
    frames: FilmOptions,
    ask: AskOptions,
    speed: SpeedOptions,
    look: Any,
    *,
    aloud: bool,
) -> Iterator[tuple[Path, dict[str, Any] | HookmapError]]:
    """Make a film of each video.

    Args:
        lens: the model's.
        paths: of the videos.
        output: a film for a single video, a folder for several; None: where the command runs.
        frames: which of each.
        ask: what is asked of each frame.
        speed: frames per forward pass.
        look: how heatmaps are drawn.
        aloud: say what was written.

    Yields:
        Each video with what a document says of it, or with why there is no film of it.

    Raises:
        HookmapError: for a place that no film can have.
    """
    from hookmap.images.video import Video

    options: Any = {name: value for name, value in ask.options().items() if name != "check"}
    for path, place in zip(paths, _places(paths, output), strict=True):
        try:
            video = Video(path, **frames.given())
            lens.film(
                video, place, ask.targets(), ask.layer, ask.method, look=look, batch_size=speed.batch_size, **options
            )
            made = Video(place)
        except HookmapError as error:
            yield path, error
            continue
        if aloud:
            say(f"[bold]{shown(path.stem)}[/]  {float(made.length):.3g} s of film -> {shown(place)}")
        yield path, {"video": str(path), "file": str(place), "seconds": round(float(made.length), 3)}


def _places(paths: Sequence[Path], output: str | None) -> list[Path]:
    """Where the film of each video goes; names that would come twice are numbered."""
    from hookmap.render.film import check_film, is_film

    if output is not None and not is_folder(output):
        check_film(output)
        if len(paths) > 1:
            raise HookmapError(f"-o {output} is one film, and {len(paths)} videos came; pass a folder: {output}/")
        chosen = {Path(output): None}
    else:
        folder, chosen = Path(output or "."), {}
        for path in paths:
            suffix = path.suffix.lower() if is_film(path) else ".mp4"
            place, number = folder / f"{path.stem}_heatmap{suffix}", 2
            while place in chosen:
                place, number = folder / f"{path.stem}_heatmap_{number}{suffix}", number + 1
            chosen[place] = None
    keep_inputs(paths, chosen)
    return list(chosen)
