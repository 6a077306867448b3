"""The user's own models: ``package.module:factory`` and ``file.py:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from hookmap.errors import ModelError
from hookmap.models.loaded import Loaded


def build(name: str, *, pretrained: bool = True, num_classes: int | None = None) -> Loaded:
    """Import and call the factory; a module-level ``nn.Module`` is taken as it is.

    ``pretrained`` has no meaning here: the factory decides. ``num_classes`` is passed on to it.

    Raises:
        ModelError: naming what failed, the user's own exception included.
    """
    from hookmap import models

    source, _, attribute = name.rpartition(":")
    factory = getattr(_module(source, name), attribute, None)
    if factory is None:
        raise ModelError(
            f"{source} has no {attribute!r}; expected a function that returns an nn.Module, as in {name!r}"
        )
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    try:
        model = factory if isinstance(factory, nn.Module) else factory(**options)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"{name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} gave a {type(model).__name__}; expected an nn.Module")
    loaded = models.describe(model)
    loaded.name = attribute
    return loaded


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
        raise ModelError(f"{name} can't be imported: {type(error).__name__}: {error}") from error
