"""A metric over many images, in torchmetrics' form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hookmap.errors import HookmapError


class Metric:
    """A metric's values of one image after the other, and their mean.

    >>> import torch
    >>> metric = Metric(lambda maps: maps.flatten(1).sum(1))
    >>> metric.update(torch.ones(2, 3, 3)), metric.update(torch.zeros(2, 3, 3))
    (tensor([9., 9.]), tensor([0., 0.]))
    >>> metric.compute()
    tensor([4.5000, 4.5000])

    Args:
        function: of ``hookmap.metrics``, such as :func:`hookmap.metrics.srg`.
        options: of that function, the same for all images.
    """

    def __init__(self, function: Callable[..., Tensor], **options: Any) -> None:
        self.function, self.options = function, options
        self._values: list[Tensor] = []

    def update(self, *of: Any) -> Tensor:
        """The function's values for one image, ``(M,)``, which are kept.

        Args:
            of: what the function takes, most often a scorer, an image and M maps.

        Raises:
            HookmapError: for another number of maps than before.
        """
        values = self.function(*of, **self.options)
        if self._values and values.shape != self._values[0].shape:
            raise HookmapError(
                f"there are {values.numel()} maps of this image and were {self._values[0].numel()} of the first; "
                "a mean over images is of the same methods"
            )
        self._values.append(values)
        return values

    @property
    def values(self) -> Tensor:
        """``(images, M)``.

        Raises:
            HookmapError: before the first image.
        """
        if not self._values:
            raise HookmapError("there's no image yet; call update first")
        return torch.stack(self._values)

    def compute(self) -> Tensor:
        """The mean over images, ``(M,)``."""
        return self.values.mean(0)

    def reset(self) -> None:
        """Begin anew."""
        self._values.clear()
