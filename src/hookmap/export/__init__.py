"""Heatmaps where hookmap isn't: a model, its gradient and a method as one file for other runtimes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from hookmap import __version__
from hookmap._files import written_whole
from hookmap._optional import require
from hookmap._progress import Track
from hookmap.adapters.adapter import Fusion
from hookmap.attribution.batch import Plan
from hookmap.attribution.engine import Engine
from hookmap.errors import HookmapError
from hookmap.export.check import check
from hookmap.export.explaining import Explaining
from hookmap.export.files import kind_of
from hookmap.export.program import program_of
from hookmap.hooks.matching import match_layers
from hookmap.hooks.preserve import preserved
from hookmap.methods import METHODS, Method
from hookmap.models.onnx.about import HEATMAP, About
from hookmap.targets import Class, name_of

__all__ = ["EXPORTABLE", "export"]

_OF_ONE_PASS = {
    *("activation", "gradient", "image", "score"),
    *("attention", "attention_with_gradient", "attentions", "attentions_with_gradients"),
}


def _exportable(method: Method) -> bool:
    return bool(method.needs) and method.per_layer and method.needs <= _OF_ONE_PASS and method.family != "baseline"


EXPORTABLE = tuple(name for name, method in METHODS.items() if _exportable(method))
"""The methods whose ingredients are those of one pass, so that they can be exported."""


def export(engine: Engine, path: Path, plan: Plan, x: Tensor, *, overwrite: bool, track: Track) -> Path:
    """Write a model and its heatmaps as one file.

    Args:
        engine: of the model.
        path: of the file, ``.onnx`` or ``.pt2``.
        plan: what is asked of every image.
        x: an example, ``(1, C, *size)``: the file takes images of this size.
        overwrite: whether a file of this name may be replaced.
        track: is told of progress.

    Raises:
        HookmapError: for what can't be exported, and if the file gives something else than the model; nothing is then
            written.
    """
    kind = kind_of(path)
    if kind.needs:
        require(*kind.needs, extra="onnx")
    if path.is_dir() or (path.exists() and not overwrite):
        raise HookmapError(f"{path} is there already; pass overwrite=True (--overwrite), or another name")
    if engine.execution.precision != "fp32":
        raise HookmapError(
            f"precision={engine.execution.precision!r} is how a lens runs a model, and a file holds it as it is; "
            "export it from a lens without it, or a model in half precision (model.half())"
        )
    engine.check_weights()
    explaining = _explaining(engine, plan, x)
    done = track(f"export {path.name}: trace, write, check", 3)
    with preserved(engine.model):
        program = program_of(explaining, x)
        done(1)
        if program.batch is not None:
            engine.remark(
                f"{path.name} takes one image at a time: the number of images is fixed in this model, or in how its "
                "output is read"
            )
        if engine.preprocessing is not None and engine.preprocessing.any_size:
            engine.remark(
                f"{path.name} takes images of {x.shape[-2]} x {x.shape[-1]} (h x w) alone, where this lens takes any "
                "size; pass an example of another size as image= to choose it"
            )
        about = _about(explaining, program.batch, x)
        try:
            with written_whole(path) as place:
                kind.write(program, about, place)
                done(1)
                check(explaining, lambda images: kind.run(place, program, images), x, program.batch)
        except OSError as error:
            raise HookmapError(f"{path} can't be written ({error.strerror or error}); choose another place") from None
        done(1)
    return path


def _explaining(engine: Engine, plan: Plan, x: Tensor) -> Explaining:
    """The one question of a plan.

    Raises:
        HookmapError: for methods that can't be exported, or several.
    """
    choice = engine.choice(x) if plan.leaves_choice else None
    if len(plan.methods) > 1:
        raise HookmapError(f"{len(plan.methods)} methods came, and a file holds the heatmaps of one; export each")
    method = plan.methods[0] if plan.methods else METHODS[choice.method if choice else "gradcam"]
    if not _exportable(method):
        raise HookmapError(
            f"{method.name} can't be exported, because it takes more than one pass, or numbers that change from "
            f"picture to picture; what can be: {', '.join(EXPORTABLE)}, and functions of yours of these ingredients"
        )
    traced = engine.trace(x)
    if plan.layer is None and choice is not None:
        names = list(choice.layers)
        fuse: Fusion | None = choice.fuse
    else:
        names, fuse = list(match_layers(engine.called, plan.layer or [])), plan.settings.fuse
    if len(names) > 1 and fuse is None:
        raise HookmapError(f"{len(names)} layers came, and a file holds one map of them; pass one layer, or fuse=")
    return Explaining(
        engine,
        plan.targets,
        replace(method, uniform=None),
        {name: traced.layout(name) for name in names},
        fuse if len(names) > 1 else None,
        method.look_of(plan.part).part,
    )


def _about(explaining: Explaining, batch: int | None, x: Tensor) -> About:
    engine = explaining.engine
    grid = explaining(x)[HEATMAP].shape[2:]
    way = engine.preprocessing
    return About(
        hookmap=__version__,
        model=engine.name,
        method=explaining.method.name,
        layers=list(explaining.layouts),
        fuse=explaining.fuse,
        part=explaining.part,
        targets=[_words(goal, engine) for goal in explaining.goals],
        heatmap={"grid": list(grid), "spans": list(engine.trace(x).field)},
        batch=batch,
        preprocessing=None if way is None else way.of_size((x.shape[-2], x.shape[-1])).as_json(),
        labels=None if engine.labels is None else list(engine.labels),
    )


def _words(goal: Any, engine: Engine) -> str:
    if type(goal) is Class and isinstance(goal.index, int):
        return engine.label(goal.index)
    return name_of(goal)
