"""What hookmap raises and warns with: one sentence that says what came, what was expected and what to do."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """What an error says first, or its kind if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class HookmapError(Exception):
    """Base of every error that hookmap raises on purpose."""


class ImageError(HookmapError):
    """An image that can't be read or explained."""


class ModelError(HookmapError):
    """A model that can't be found, built, loaded or hooked."""


class LayerError(HookmapError):
    """A layer that isn't there, didn't run, or can't be read as a grid."""


class DataError(HookmapError):
    """A data set or a run over one that can't be read or written."""


class TargetError(HookmapError):
    """A target that doesn't exist or doesn't depend on the layer."""


class MissingLibraryError(HookmapError):
    """A library that an optional part needs isn't installed."""


class NothingDetectedError(TargetError):
    """A detector that was asked about objects, and a picture in which it finds none."""


class DisconnectedError(TargetError):
    """A score that no gradient connects to the captured layers."""


class HookmapWarning(UserWarning):
    """A result that exists but should not be trusted as it is."""
