"""What all commands share: the application, its options, and how it speaks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from hookmap.lens import Lens

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="[bold]Hooks in, maps out[/]: see what a PyTorch vision model sees.\n\n"
    "Start with [cyan]hookmap explain photo.jpg[/], then [cyan]hookmap features photo.jpg[/].",
)

Images = Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)]
Model = Annotated[
    str,
    typer.Option("--model", "-m", help="A torchvision or timm name, package.module:factory or file.py:factory."),
]
Weights = Annotated[Path | None, typer.Option(help="Checkpoint to load: safetensors, or a saved state dict.")]
Pretrained = Annotated[bool, typer.Option("--pretrained/--no-pretrained", help="Trained or random weights.")]
Labels = Annotated[Path | None, typer.Option(help="Text file with one class name per line.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the best there is.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]
DEFAULT_MODEL = "efficientnet_lite0"


# Without a terminal there is no width to fit: tables go to files and pipes unbroken.
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, soft_wrap=True)


def complain(sentence: str) -> None:
    """Say what went wrong, on stderr."""
    err.print(f"[red]hookmap:[/] {escape(sentence)}", highlight=False)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """hookmap's own warnings as one line each; those of the libraries beneath aren't the user's business."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if category.__name__ == "HookmapWarning":
            err.print(f"[yellow]note:[/] {escape(str(message))}", highlight=False)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        yield


def lens_of(
    model: str, weights: Path | None, pretrained: bool, labels: Path | None, device: str | None, **how: Any
) -> Lens:
    """The lens that the options of a command describe."""
    import hookmap as hm

    names = None
    if labels is not None:
        try:
            names = [line.strip() for line in labels.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise hm.HookmapError(f"{labels} can't be read as a list of labels ({error})") from None
    return hm.Lens(model, weights=weights, pretrained=pretrained, labels=names, device=device, **how)
