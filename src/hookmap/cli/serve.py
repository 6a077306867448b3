"""The command that opens the interface: serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hookmap._optional import require
from hookmap.cli.commands import command, say, shown
from hookmap.cli.files import images_in
from hookmap.cli.options import ModelsOptions, PrecisionOptions

_OPENED = 100
"""So many photos of a folder are opened; methods are compared on all."""


@command(needs="hookmap.lens")
def serve(
    models: ModelsOptions,
    speed: PrecisionOptions,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Photos to begin with: files, folders, or quoted patterns. On 8 or more methods can be compared."
        ),
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option(help="A run to browse: the folder that `hookmap run` wrote. May be repeated.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at. Any but this machine's own asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Default: the first free one from 4665.", show_default=False)
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Don't open the browser.")] = False,
) -> None:
    """Open the interface in the browser: walk through models with photos of yours.

    [dim]Examples[/]

      hookmap serve

      hookmap serve photos/ -m resnet50 -m vit_base_patch16_224

      hookmap serve --run runs/val -m resnet50

      hookmap serve -m net.py:build --weights best.pt --labels names.txt
    """
    require("fastapi", "uvicorn", extra="app")
    import webbrowser

    from hookmap.app.running import address, listening
    from hookmap.app.running import run as answer
    from hookmap.app.runs import browsed
    from hookmap.app.safety import Access
    from hookmap.app.server import App
    from hookmap.explorer import SAMPLES
    from hookmap.explorer.answering import Explorer

    with listening(host, port) as listener:
        access = Access.at(host)
        photos = images_in(images or [])
        explorer = Explorer(models.named(speed), photos[:_OPENED] or SAMPLES)
        app = App(explorer, access, browsed(run or []), photos)
        link = address(listener, host, access.token)
        if access.token is not None:
            say("[dim]Others than this machine can reach it: whoever has this link may ask.[/]")
        say(f"[bold]{shown(link)}[/]  [dim]Ctrl-C ends it[/]")
        if not no_open:
            webbrowser.open(link)
        answer(app, listener)
