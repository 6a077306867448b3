"""What a heatmap answers, so that it can be asked again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from hookmap.adapters.adapter import Fusion
from hookmap.errors import HookmapError
from hookmap.images.preprocessing import Preprocessing
from hookmap.methods import Method
from hookmap.methods.registry import kept_or_lost
from hookmap.results.choice import Choice
from hookmap.targets import Goal, name_of


@dataclass(frozen=True)
class Settings:
    """How a heatmap is taken, whatever its target, layer and method.

    Attributes:
        seed: of everything random.
        budget: the most changed copies of an image that a method may look at; None: as many as its paper takes.
        aug_smooth: averaged over mirrored, darker and brighter copies.
        noise_smooth: averaged over so many noisy copies too.
        eigen_smooth: weighted feature maps are reduced to their first principal component.
        libra: gradients are balanced.
        rivals: how many other classes compete for each place; 0: none.
        fuse: how the maps of several layers become one, or None.

    Raises:
        HookmapError: for settings that can't be.
    """

    seed: int = 0
    budget: int | None = None
    aug_smooth: bool = False
    noise_smooth: int = 0
    eigen_smooth: bool = False
    libra: bool = False
    rivals: int = 0
    fuse: Fusion | None = None

    def __post_init__(self) -> None:
        for name in ("aug_smooth", "eigen_smooth", "libra"):
            if not isinstance(value := getattr(self, name), bool):
                raise HookmapError(f"{name} is {value!r}; expected True or False")
        if not _is_count(self.seed) or self.seed >= 2**63:
            raise HookmapError(f"seed is {self.seed!r}; expected a whole number from 0 to 2**63 - 1")
        if self.budget is not None and (not _is_count(self.budget) or not self.budget):
            raise HookmapError(f"budget is {self.budget!r}; expected the number of changed copies, 1 or more, or None")
        if not _is_count(self.noise_smooth):
            raise HookmapError(f"noise_smooth is {self.noise_smooth!r}; expected how many noisy copies, 0 or more")
        if not _is_count(self.rivals):
            raise HookmapError(f"rivals is {self.rivals!r}; expected how many other classes compete, 0 or more")
        if self.fuse is not None and self.fuse not in get_args(Fusion):
            raise HookmapError(f"there's no fusion {self.fuse!r} of layers; use one of {', '.join(get_args(Fusion))}")

    def generator(self) -> torch.Generator:
        """Random numbers from the start of the seed, on the CPU so that every device draws the same."""
        return torch.Generator().manual_seed(self.seed)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True, eq=False)
class Question:
    """Everything that decides a heatmap, beside the image.

    Attributes:
        target: what was explained, resolved: of the predicted class its index, of a detection its number.
        method: how.
        layers: where the activations were taken; several that were fused, none for methods of the whole model.
        settings: how it was taken.
        model: the model's name.
        fingerprint: of the model's parameters and buffers.
        precision: what the model ran in.
        preprocessing: from the picture to the input; None for inputs that were preprocessed already.
        together: how many targets and images were asked together: other numbers may round in another way.
        place: the number of this target and this image among those.
        input: the model's input ``(C, *size)``, if it came preprocessed already.
        choice: what was chosen by default and why; None where layer and method were both named.
    """

    target: Goal
    method: Method
    layers: tuple[str, ...]
    settings: Settings
    model: str
    fingerprint: str
    precision: str
    preprocessing: Preprocessing | None
    together: tuple[int, int] = (1, 1)
    place: tuple[int, int] = (0, 0)
    input: Tensor | None = None
    choice: Choice | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A target that can't be pickled, a lambda say, is lost."""
        return {**self.__dict__, "target": kept_or_lost(self.target, "target", name_of(self.target))}


@dataclass(frozen=True)
class Position:
    """Where a heatmap stands among those of one call: the number of its image, target, layer and method.

    Attributes:
        image: among all images that were given.
        target: among the targets of its image; of a detector each detection that a target means is one.
        layer: among the layers of its image.
        method: among the methods.
        asked: the number of the target as it was given.
    """

    image: int = 0
    target: int = 0
    layer: int = 0
    method: int = 0
    asked: int = 0
