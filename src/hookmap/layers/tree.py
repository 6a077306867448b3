"""The layers of a model as a tree to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hookmap.errors import LayerError
from hookmap.layers.trace import LayerInfo, Trace

if TYPE_CHECKING:
    from rich.tree import Tree


class LayerTree(Sequence[LayerInfo]):
    """The layers of a model as a tree to read: ``print`` it, or index it like a list."""

    def __init__(self, traced: Trace, *, model: str, default: Sequence[str] = (), why: str = "") -> None:
        self._infos = list(traced.layers.values())
        self._model = model
        self._default = default
        self._why = why

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            found = next((info for info in self._infos if info.name == index), None)
            if found is None:
                raise LayerError(f"there's no layer {index!r}; print the tree to see their names")
            return found
        return self._infos[index]

    def __len__(self) -> int:
        return len(self._infos)

    def __rich__(self) -> Tree:
        """A rich tree: name, type, output shape, layout; the default layer for heatmaps is marked."""
        from rich.markup import escape
        from rich.tree import Tree

        nodes: dict[str, Tree] = {}
        for info in self._infos:
            label = f"[bold]{escape(info.name.rpartition('.')[2] or self._model)}[/] [cyan]{info.kind}[/]"
            if info.shape:
                label += f"  {'x'.join(map(str, info.shape[1:])) or 'scalar'}"
            if info.layout:
                label += f"  [green]{info.layout}[/]"
            if info.calls > 1:
                label += f"  [yellow]runs {info.calls} times[/]"
            if not info.calls and info.name:
                label += "  [dim]not run[/]"
            if info.name in self._default:
                label += f"  [bold magenta]<- {escape(self._why)}[/]"
            parent = nodes.get(info.name.rpartition(".")[0]) if info.name else None
            nodes[info.name] = parent.add(label) if parent is not None else Tree(label, guide_style="dim")
        return nodes[""]

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=160, no_color=True)
        with console.capture() as text:
            console.print(self.__rich__())
        return text.get()

    __repr__ = __str__
