"""What a library tells of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from hookmap.adapters.adapter import Adapter
from hookmap.errors import ModelError, first_line
from hookmap.images.preprocessing import Preprocessing


@dataclass
class Loaded:
    """A model and what is known of it.

    Attributes:
        adapter: how it is called and read, if not as any classifier.
        note: what the user should know before trusting results, e.g. that the preprocessing was assumed.
        unnamed: likewise of the classes' names, where the user gives none.
    """

    model: nn.Module
    name: str
    preprocessing: Preprocessing | None = None
    labels: Sequence[str] | None = None
    note: str | None = None
    unnamed: str | None = None
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Entry:
    """A model that can be loaded by name.

    Attributes:
        name: as it is loaded.
        library: whose it is.
        weights: packaged, cached, download or none.
        gives: what it can be asked about: classes, detections or regions.
    """

    name: str
    library: str
    weights: str
    gives: str = "classes"


def no_weights(name: str, error: BaseException) -> ModelError:
    """The error for pretrained weights that couldn't be had."""
    reason = first_line(error)[:160]
    return ModelError(
        f"the pretrained weights of {name} couldn't be loaded ({reason}); give a checkpoint with --weights FILE "
        "(weights=), or take random weights with --no-pretrained (pretrained=False)"
    )


def no_names(name: str) -> str:
    """The sentence about classes that nobody taught a model, so that a library's names aren't theirs."""
    return f"{name}: its untrained classes have no names; pass labels= if they have"


def is_untrained(head: nn.Linear | nn.Conv2d) -> bool:
    """Whether a head is as PyTorch and its libraries start it: biases of zero, or weights that are uniform numbers.

    The default draws from -b to b with b = 1 / sqrt(inputs): none lies outside, and their deviation is b / sqrt(3).
    """
    weight, bias = head.weight.detach().float(), head.bias
    if bias is not None and not bool(bias.detach().any()):
        return True
    bound = weight[0].numel() ** -0.5
    uniform = bool(abs(float(weight.std()) * 3**0.5 / bound - 1) < 0.02)
    return uniform and bool(weight.abs().max() <= bound * 1.001)
