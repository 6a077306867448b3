"""Heatmaps in one file: a NumPy ``.npz`` of arrays and one JSON text, without pickles."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hookmap import errors, targets
from hookmap._files import written_whole
from hookmap.errors import HookmapError, ImageError, first_line
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture, load
from hookmap.images.preprocessing import Preprocessing
from hookmap.methods import METHODS, Method
from hookmap.methods.registry import LostFunction
from hookmap.render.look import Look
from hookmap.results.check import Check
from hookmap.results.choice import Choice
from hookmap.results.heatmap import Heatmap
from hookmap.results.question import Position, Question, Settings

_FORMAT = "hookmap explanation"
_VERSION = 1
_PLAIN = ("layer", "target", "index", "score", "probability", "where", "box", "number", "caution")

Arrays = dict[str, np.ndarray[Any, Any]]


def save_archive(heatmaps: Sequence[Heatmap], failed: Mapping[str, HookmapError], path: Path) -> Path:
    """Write heatmaps with their pictures and questions.

    Raises:
        HookmapError: if the place can't be written; nothing half-written is left.
    """
    arrays: Arrays = {}
    pictures: dict[int, int] = {}
    about: dict[str, Any] = {"format": _FORMAT, "version": _VERSION, "pictures": [], "heatmaps": []}
    for heatmap in heatmaps:
        picture = heatmap.picture
        if id(picture) not in pictures:
            number = pictures[id(picture)] = len(pictures)
            encoded = picture.encoded
            arrays[f"picture {number}"] = np.frombuffer(encoded, np.uint8) if encoded is not None else picture.pixels
            about["pictures"].append(
                {"name": picture.name, "path": picture.path and str(picture.path), "encoded": encoded is not None}
            )
        about["heatmaps"].append(_packed(heatmap, pictures[id(picture)], arrays))
    about["errors"] = {name: [type(error).__name__, str(error)] for name, error in failed.items()}
    text = json.dumps(about, allow_nan=True)
    try:
        with written_whole(path) as place, place.open("wb") as file:
            np.savez_compressed(file, about=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise HookmapError(f"{path} can't be written ({error.strerror or error}); choose another place") from None
    return path


def read_archive(path: Path) -> tuple[list[Heatmap], dict[str, HookmapError]]:
    """Heatmaps as they were saved, and the errors of images that failed.

    Raises:
        HookmapError: if the file can't be read or holds something else.
    """
    try:
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            if about["format"] != _FORMAT:
                raise KeyError("format")
            if about["version"] > _VERSION:
                raise HookmapError(f"{path} was written by a newer hookmap; update yours to read it")
            pictures = [_picture(entry, file[f"picture {n}"]) for n, entry in enumerate(about["pictures"])]
            heatmaps = [_unpacked(entry, pictures, file) for entry in about["heatmaps"]]
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile, ImageError) as error:
        raise HookmapError(
            f"{path} is no explanation that hookmap saved, or is damaged ({first_line(error)}); pass an .npz that "
            "Explanation.save wrote"
        ) from None
    except OSError as error:
        raise HookmapError(f"{path} can't be read ({error.strerror or error}); check the path") from None
    return heatmaps, {name: _error(*error) for name, error in about["errors"].items()}


def _error(kind: str, sentence: str) -> HookmapError:
    known = getattr(errors, kind, HookmapError)
    made: HookmapError = (known if issubclass(known, HookmapError) else HookmapError)(sentence)
    return made


def _picture(about: Mapping[str, Any], data: np.ndarray[Any, Any]) -> Picture:
    picture = load(data.tobytes()) if about["encoded"] else Picture(data)
    picture = picture.renamed(about["name"])
    picture.path = None if about["path"] is None else Path(about["path"])
    return picture


def _packed(heatmap: Heatmap, picture: int, arrays: Arrays) -> dict[str, Any]:
    packed: dict[str, Any] = {name: getattr(heatmap, name) for name in _PLAIN}
    packed |= {"picture": picture, "raw": _tensor(heatmap.raw, arrays), "geometry": asdict(heatmap.geometry)}
    packed |= {"method": _method(heatmap.method, arrays), "position": asdict(heatmap.position)}
    packed |= {"look": heatmap.look.as_json()}
    if heatmap.check is not None:
        packed["check"] = asdict(heatmap.check)
    if heatmap.frames is not None:
        packed["frames"] = _array(heatmap.frames, arrays)
    question = heatmap.question
    if question is not None:
        packed["question"] = {
            "target": _value(question.target, arrays),
            "layers": question.layers,
            "settings": asdict(question.settings),
            "model": question.model,
            "fingerprint": question.fingerprint,
            "precision": question.precision,
            "preprocessing": None if question.preprocessing is None else question.preprocessing.as_json(),
            "together": question.together,
            "place": question.place,
            "choice": None if question.choice is None else asdict(question.choice),
            "input": None if question.input is None else _tensor(question.input, arrays),
        }
    return packed


def _unpacked(about: dict[str, Any], pictures: Sequence[Picture], file: Mapping[str, np.ndarray[Any, Any]]) -> Heatmap:
    method = _read_method(about["method"], file)
    asked = about.get("question")
    question = None
    if asked is not None:
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()
        }
        given |= {"target": _read(asked["target"], file), "settings": Settings(**asked["settings"]), "method": method}
        given["preprocessing"] = (
            None if asked["preprocessing"] is None else Preprocessing.from_json(asked["preprocessing"])
        )
        given["input"] = None if asked["input"] is None else _read_tensor(asked["input"], file)
        given["choice"] = None if asked.get("choice") is None else Choice.read(asked["choice"])
        question = Question(**given)
    plain = {name: about[name] for name in _PLAIN if name in about}
    plain["box"] = None if about["box"] is None else tuple(about["box"])
    return Heatmap(
        raw=_read_tensor(about["raw"], file),
        picture=pictures[about["picture"]],
        geometry=Geometry(**_tuples(about["geometry"])),
        method=method,
        frames=file[about["frames"]] if "frames" in about else None,
        position=Position(**about["position"]),
        look=Look.from_json(about["look"]),
        question=question,
        check=Check(**about["check"]) if "check" in about else None,
        **plain,
    )


def _tuples(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in about.items()}


# ---------------------------------------------------------------- arrays


def _array(value: np.ndarray[Any, Any], arrays: Arrays) -> str:
    name = f"array {len(arrays)}"
    arrays[name] = value
    return name


def _tensor(value: Tensor, arrays: Arrays) -> dict[str, str]:
    plain = value.detach().cpu().contiguous()
    kind = str(plain.dtype).removeprefix("torch.")
    # NumPy has no bfloat16.
    array = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain
    return {"dtype": kind, "array": _array(array.numpy(), arrays)}


def _read_tensor(about: Mapping[str, str], file: Mapping[str, np.ndarray[Any, Any]]) -> Tensor:
    tensor = torch.from_numpy(np.array(file[about["array"]]))
    return tensor.view(torch.bfloat16) if about["dtype"] == "bfloat16" else tensor


# ---------------------------------------------------------------- targets and methods

_TARGETS = {name: kind for name in targets.__all__ if isinstance(kind := getattr(targets, name), type)}


def _value(value: Any, arrays: Arrays) -> Any:
    """A target, or what one holds, as JSON."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        return {"tensor": _tensor(value, arrays)}
    if isinstance(value, (list, tuple)):
        return {"list": [_value(one, arrays) for one in value]}
    if is_dataclass(value) and type(value).__name__ in _TARGETS:
        return {
            "target": type(value).__name__,
            **{f.name: _value(getattr(value, f.name), arrays) for f in fields(value)},
        }
    return {"function": getattr(value, "__qualname__", None) or str(value)}


def _read(about: Any, file: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    if not isinstance(about, dict):
        return about
    if "tensor" in about:
        return _read_tensor(about["tensor"], file)
    if "list" in about:
        return [_read(one, file) for one in about["list"]]
    if "target" in about:
        return _TARGETS[about["target"]](
            **{name: _read(value, file) for name, value in about.items() if name != "target"}
        )
    return LostFunction("target", about["function"])


def _method(method: Method, arrays: Arrays) -> dict[str, Any]:
    """A method by its name and settings, and how it is shown."""
    settings: Mapping[str, Any] = method.function.keywords if isinstance(method.function, partial) else {}
    return {
        "name": method.name,
        "base": next((one.name for one in METHODS.values() if one.function is _inner(method.function)), None),
        "settings": {name: _value(value, arrays) for name, value in settings.items()},
        "title": method.title,
        "family": method.family,
        "rectified": method.rectified,
        "signed": method.signed,
        "look": method.look.as_json(),
    }


def _inner(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return function.func if isinstance(function, partial) else function


def _read_method(about: Mapping[str, Any], file: Mapping[str, np.ndarray[Any, Any]]) -> Method:
    known = METHODS.get(about["base"]) if about["base"] is not None else None
    function: Callable[..., Tensor] = LostFunction("method", about["name"]) if known is None else known.function
    settings = {name: _read(value, file) for name, value in about["settings"].items()}
    shown = {name: about[name] for name in ("name", "title", "family", "rectified", "signed")}
    shown["look"] = Look.from_json(about["look"])
    made = Method(function=partial(function, **settings) if settings else function, **shown)
    if known is not None:
        made = Method(**{f.name: getattr(known, f.name) for f in fields(Method)} | shown | {"function": made.function})
    return made
