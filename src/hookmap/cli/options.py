"""The options that several commands have, each described once."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from hookmap.errors import HookmapError, ModelError

if TYPE_CHECKING:
    from hookmap.attribution.planning import ExplainOptions
    from hookmap.explorer.answering import Named
    from hookmap.images.preprocessing import Preprocessing
    from hookmap.lens import Lens
    from hookmap.render.look import LookOptions

DEFAULT_MODEL = "efficientnet_lite0"
_NAMES = (
    "A torchvision or timm name; hf/ORG/NAME or a folder that transformers saved; an ultralytics name; net.onnx; or "
    "file.py:build or package.module:build, which gives an nn.Module, a hookmap.Adapter or a hookmap.Lens."
)
_MODEL, _LOOKING, _DRAWING, _SPEED, _FILM = "Model", "What is asked", "How it is drawn", "Speed", "Videos"

Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders of them, or quoted patterns: 'photos/**/*.jpg'.", show_default=False),
]
Top = Annotated[int | None, typer.Option("--top", "-n", min=1, help="This many of the most probable classes.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer", "-l", rich_help_panel=_LOOKING, help="Layer name or glob; repeatable. Default: the best one."
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        rich_help_panel=_LOOKING,
        help="Method, or all; repeatable. See `hookmap methods`. Default: what fits the model.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, rich_help_panel=_LOOKING, help="Of everything random.")]
Budget = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=_LOOKING,
        help="Most masked copies of a photo per method. Default: the papers'; of all methods together: 256.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@dataclass(kw_only=True)
class MakingOptions:
    """How a model is made, and how its images are preprocessed."""

    weights: Annotated[
        Path | None,
        typer.Option(rich_help_panel=_MODEL, help="Checkpoint to load: safetensors, or a saved state dict."),
    ] = None
    pretrained: Annotated[
        bool,
        typer.Option("--pretrained/--no-pretrained", rich_help_panel=_MODEL, help="Trained or random weights."),
    ] = True
    labels: Annotated[
        Path | None, typer.Option(rich_help_panel=_MODEL, help="Text file with one class name per line.")
    ] = None
    size: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_MODEL,
            help="Input size of a model of your own: 224 takes the middle of the photo; HxW all of it, stretched.",
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_MODEL,
            help="Mean of its input, 0..1: 0.485,0.456,0.406; one number for grey.",
        ),
    ] = None
    std: Annotated[
        str | None, typer.Option(rich_help_panel=_MODEL, help="Standard deviation of its input, likewise.")
    ] = None
    fit: Annotated[
        str,
        typer.Option(
            rich_help_panel=_MODEL,
            help="What is seen of a photo: crop, as the model's library does; whole, all of it; stretch, all of it "
            "pressed into the usual input.",
        ),
    ] = "crop"
    device: Annotated[
        str | None,
        typer.Option(rich_help_panel=_MODEL, help="cpu, cuda, cuda:1, mps; by default the best there is."),
    ] = None

    def lens_of(self, model: str, speed: PrecisionOptions | None = None) -> Lens:
        """The lens of a model that the options describe."""
        import hookmap as hm
        from hookmap._devices import best_device
        from hookmap.models import custom, holds_one

        given: dict[str, Any] = {
            "labels": None if self.labels is None else _lines(self.labels),
            "preprocessing": self._preprocessing(),
            "fit": self.fit,
            "device": self.device,
        }
        if speed is not None:
            given |= {"precision": speed.precision, "compile": speed.compile}
        if ":" not in model or self.weights is not None:
            return hm.Lens(model, weights=self.weights, pretrained=self.pretrained, **given)
        made = custom.made(model)
        if holds_one(made):
            return hm.Lens(made, **given | {"device": self.device or best_device()})
        if not isinstance(made, hm.Lens):
            raise ModelError(
                f"{model} gave a {type(made).__name__}; expected an nn.Module, a hookmap.Adapter or a hookmap.Lens"
            )
        if self.labels or self.device or given["preprocessing"] is not None or self.fit != "crop":
            raise ModelError(
                f"{model} gave a Lens, which holds all of that itself; leave out --labels, --size, --mean, --std, "
                "--fit and --device"
            )
        return made

    def _preprocessing(self) -> Preprocessing | None:
        import hookmap as hm

        if self.size is None and self.mean is None and self.std is None:
            return None
        given: dict[str, Any] = {}
        if self.size is not None:
            sides = _numbers("size", self.size.lower().replace("x", ","), int)
            if len(sides) not in (1, 2) or min(sides) < 1:
                raise HookmapError(f"--size is {self.size!r}; expected pixels, such as 224, or HxW, such as 192x256")
            given = {"size": (sides[0], sides[-1]), "resize": sides[0] if len(sides) == 1 else sides}
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None:
                given[name] = _numbers(name, numbers, float)
        if min(given.get("std", (1.0,))) <= 0:
            raise HookmapError(f"--std is {self.std!r}; expected numbers above 0")
        return hm.Preprocessing(**given)


@dataclass(kw_only=True)
class ModelOptions(MakingOptions):
    """The model, and how it is made."""

    model: Annotated[str, typer.Option("--model", "-m", rich_help_panel=_MODEL, help=_NAMES)] = DEFAULT_MODEL

    def lens(self, speed: PrecisionOptions | None = None) -> Lens:
        """The lens that the options describe."""
        return self.lens_of(self.model, speed)


@dataclass(kw_only=True)
class ModelsOptions(MakingOptions):
    """Several models, and how they are made."""

    models: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", rich_help_panel=_MODEL, help=f"{_NAMES} Repeatable. Default: {DEFAULT_MODEL}."),
    ] = None

    def named(self, speed: PrecisionOptions) -> dict[str, Named]:
        """The models that the options describe, by the names as they were given.

        Raises:
            ModelError: if what describes one model comes with several.
        """
        from hookmap.explorer.answering import Named

        names = list(dict.fromkeys(self.models or [DEFAULT_MODEL]))
        own = ("weights", "labels", "size", "mean", "std")
        if len(names) > 1 and (given := [f"--{name}" for name in own if getattr(self, name) is not None]):
            raise ModelError(
                f"{len(names)} models are named, and {', '.join(given)} describes one; for several write a "
                "file.py:build each"
            )
        return {
            name: Named(self.lens_of(name, speed).engine, self._python(name), shlex.join(["-m", name, *self._words()]))
            for name in names
        }

    def _words(self) -> Iterator[str]:
        """What describes the model on a command line."""
        for option in fields(MakingOptions):
            value = getattr(self, option.name)
            if value != option.default:
                yield from ["--no-pretrained"] if value is False else [f"--{option.name}", str(value)]

    def _python(self, model: str) -> str:
        """What makes the lens in Python."""
        given = {"weights": self.weights and str(self.weights), "fit": self.fit, "device": self.device}
        usual = {"weights": None, "fit": "crop", "device": None}
        words = [repr(model), *(f"{name}={value!r}" for name, value in given.items() if value != usual[name])]
        words += [] if self.pretrained else ["pretrained=False"]
        words += [] if self.labels is None else [f"labels=open({str(self.labels)!r}).read().splitlines()"]
        preprocessing = self._preprocessing()
        words += [] if preprocessing is None else [f"preprocessing=hm.{preprocessing!r}"]
        return f"hm.Lens({', '.join(words)})"


@dataclass(kw_only=True)
class DrawingOptions:
    """How a heatmap is drawn: :class:`~hookmap.render.look.LookOptions`; what isn't named is as its method has it."""

    colormap: Annotated[
        str | None,
        typer.Option(rich_help_panel=_DRAWING, help="A matplotlib colour map, e.g. inferno, viridis, jet."),
    ] = None
    opacity: Annotated[
        str | None, typer.Option(rich_help_panel=_DRAWING, help="0 to 1, or ramp: the stronger the more opaque.")
    ] = None
    threshold: Annotated[
        float | None, typer.Option(rich_help_panel=_DRAWING, help="Nothing below this share of the strongest.")
    ] = None
    scale: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_DRAWING,
            help="max: from 0; minmax: from the smallest value; symmetric: both signs, in two colours.",
        ),
    ] = None
    limit: Annotated[float | None, typer.Option(rich_help_panel=_DRAWING, help="The value drawn as the strongest.")] = (
        None
    )
    outliers: Annotated[
        float | None, typer.Option(rich_help_panel=_DRAWING, help="Share of places drawn as equally strong.")
    ] = None
    grey: Annotated[
        bool | None, typer.Option("--grey/--no-grey", rich_help_panel=_DRAWING, help="The photo in grey.")
    ] = None

    def look(self) -> LookOptions:
        """What is to be drawn otherwise than its method has it.

        Raises:
            HookmapError: for what can't be.
        """
        from hookmap.render.look import Look

        named: Any = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        with suppress(KeyError, ValueError):  # a word: the look says what it expects
            named["opacity"] = float(named["opacity"])
        Look().but(named)
        return cast("LookOptions", named)


@dataclass(kw_only=True)
class AskOptions:
    """What is asked of each image: :class:`~hookmap.attribution.planning.ExplainOptions` but for how a batch runs."""

    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            rich_help_panel=_LOOKING,
            help="Class index or label; box:2 (a detection), box:L,T,R,B, point:X,Y, everywhere; in a run also label, "
            "each image's true class; repeatable. Default: the predicted class, or all detections.",
        ),
    ] = None
    versus: Annotated[
        list[str] | None,
        typer.Option(rich_help_panel=_LOOKING, help="Why the target rather than this class; repeatable."),
    ] = None
    layer: Layers = None
    method: Methods = None
    part: Annotated[
        str | None,
        typer.Option(rich_help_panel=_LOOKING, help="positive, negative (what speaks against) or signed."),
    ] = None
    fuse: Annotated[
        str | None,
        typer.Option(rich_help_panel=_LOOKING, help="One map of several layers: mean, max, product, layercam."),
    ] = None
    aug_smooth: Annotated[
        bool,
        typer.Option("--aug-smooth", rich_help_panel=_LOOKING, help="Average over mirrored and darker copies."),
    ] = False
    noise_smooth: Annotated[
        int, typer.Option(min=0, rich_help_panel=_LOOKING, help="Average over so many noisy copies.")
    ] = 0
    eigen_smooth: Annotated[
        bool,
        typer.Option("--eigen-smooth", rich_help_panel=_LOOKING, help="First component of the feature maps."),
    ] = False
    libra: Annotated[
        bool, typer.Option("--libra", rich_help_panel=_LOOKING, help="Balanced gradients (LibraGrad).")
    ] = False
    rivals: Annotated[
        int, typer.Option(min=0, rich_help_panel=_LOOKING, help="Let so many other classes compete for each place.")
    ] = 0
    seed: Seed = 0
    budget: Budget = None
    check: Annotated[
        bool,
        typer.Option("--check", rich_help_panel=_LOOKING, help="Say how far to believe each heatmap: 60 passes more."),
    ] = False

    def targets(self, asked: list[Any] | None = None) -> list[Any]:
        """What is explained: of these, or of what ``--target`` says."""
        from hookmap.targets import PREDICTED, Contrast

        asked = asked or list(self.target or [PREDICTED])
        return [Contrast(this, that) for this in asked for that in self.versus] if self.versus else asked

    def options(self) -> ExplainOptions:
        """Everything but target, layer and method."""
        given = {
            "part": self.part,
            "fuse": self.fuse,
            "aug_smooth": self.aug_smooth,
            "noise_smooth": self.noise_smooth,
            "eigen_smooth": self.eigen_smooth,
            "libra": self.libra,
            "rivals": self.rivals,
            "seed": self.seed,
            "budget": self.budget,
            "check": self.check or None,
        }
        if self.budget is None and "all" in (self.method or ()):
            given["budget"] = 256
        return cast("ExplainOptions", {name: value for name, value in given.items() if value is not None})


@dataclass(kw_only=True)
class FilmOptions:
    """Which frames of a video become a film."""

    every: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_FILM, help="Every so many-th frame of a video.")
    ] = None
    start: Annotated[
        float | None, typer.Option(min=0, rich_help_panel=_FILM, help="Seconds at which a video begins.")
    ] = None
    end: Annotated[float | None, typer.Option(min=0, rich_help_panel=_FILM, help="Seconds before which it stops.")] = (
        None
    )

    def given(self) -> dict[str, Any]:
        """What was said, as :class:`hookmap.Video` takes it."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(kw_only=True)
class PrecisionOptions:
    """In what the model runs."""

    precision: Annotated[
        str, typer.Option(rich_help_panel=_SPEED, help="fp32, or bf16 or fp16: faster where the hardware has it.")
    ] = "fp32"
    compile: Annotated[
        bool, typer.Option("--compile", rich_help_panel=_SPEED, help="Through torch.compile; for thousands of images.")
    ] = False


@dataclass(kw_only=True)
class SpeedOptions(PrecisionOptions):
    """How the model runs."""

    batch_size: Annotated[int, typer.Option(min=1, rich_help_panel=_SPEED, help="Images per forward pass.")] = 16


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise HookmapError(f"{path} can't be read as a list of labels ({error})") from None


def _numbers(name: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    try:
        return tuple(kind(number) for number in text.split(","))
    except ValueError:
        raise HookmapError(f"--{name} is {text!r}; expected numbers with commas between them") from None
