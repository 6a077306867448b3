"""The user's own models: ``package.module:factory`` and ``file.py:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from hookmap._text import did_you_mean, listed
from hookmap.errors import ModelError, first_line
from hookmap.models.loaded import Loaded


def build(name: str, *, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """The model that the factory makes, and what is known of it.

    ``pretrained`` has no meaning here: the factory decides. ``num_classes`` is passed on to it.

    Raises:
        ModelError: naming what failed, the user's own exception included.
    """
    from hookmap import models

    model = made(name, **({} if num_classes is None else {"num_classes": num_classes}))
    if not models.holds_one(model):
        raise ModelError(f"{name} gave a {type(model).__name__}; expected an nn.Module or a hookmap.Adapter")
    loaded = models.describe(model)
    loaded.name = name.rpartition(":")[2]
    return loaded


def made(name: str, **options: Any) -> Any:
    """What the factory of this name gives; an object that can't be called is taken as it is.

    Raises:
        ModelError: naming what failed, the user's own exception included.
    """
    source, _, attribute = name.rpartition(":")
    module = _module(source, name)
    factory = getattr(module, attribute, None)
    if factory is None:
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        functions = [key for key in own if callable(getattr(module, key)) and not key.startswith("_")]
        there = f"it has {listed(functions)}" if functions else "define a function there that returns the model"
        raise ModelError(f"{source} has no {attribute!r}; {did_you_mean(attribute, functions, there)}")
    try:
        return factory(**options) if callable(factory) and not isinstance(factory, nn.Module) else factory
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"{name} failed: {type(error).__name__}: {first_line(error)}") from error


def _module(source: str, name: str) -> ModuleType:
    try:
        if source.endswith(".py"):
            path = Path(source).expanduser()
            if not path.is_file():
                raise ModelError(f"there's no file {source}; expected file.py:factory or package.module:factory")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise ModelError(f"{source} can't be imported as Python")
            module = importlib.util.module_from_spec(spec)
            # Files import their neighbours, and pickling and dataclasses look their module up.
            sys.path.insert(0, str(path.parent.resolve()))
            try:
                sys.modules.setdefault(path.stem, module)
                spec.loader.exec_module(module)
            finally:
                sys.path.remove(str(path.parent.resolve()))
            return module
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(source)
        finally:
            sys.path.remove(str(Path.cwd()))
    except ModelError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"{name} can't be imported: {type(error).__name__}: {first_line(error)}") from error
