"""From the labels of a data set to the classes of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hookmap._text import printable
from hookmap.targets.naming import ClassNames, synset

_MOST = 2**31
"""The index holds numbers of 32 bits."""


@dataclass(frozen=True)
class TrueClasses:
    """Which class of the model a label means.

    Attributes:
        names: of the model's classes, if known.
        folders: of the data set's classes by index, if known.
        count: of the model's classes, if known.
    """

    names: Sequence[str] | None
    folders: Sequence[str] | None
    count: int | None = None

    def index(self, label: str | int | None) -> int | None:
        """The class of a label, or None.

        A number is that of the data set's own class if it names them, else the model's class itself. A word is the only
        class that is called so, itself or a synonym. Else the data set's order counts, as ``ImageFolder`` numbers its
        folders, if the model has as many classes. ImageNet's folders (``n01440764``) are known.
        """
        if label is None:
            return None
        if isinstance(label, int) and self.folders:
            return self.index(self.folders[label]) if 0 <= label < len(self.folders) else None
        if isinstance(label, int):
            return label if 0 <= label < (self.count or _MOST) else None
        if len(called := self._by_name.called(label)) == 1:
            return called[0]
        if self.folders and label in self.folders and self.count in (None, len(self.folders)):
            return list(self.folders).index(label)
        return synset(label, self.count)

    def name(self, label: str | int | None) -> str | None:
        """A label in words."""
        if isinstance(label, int):
            known = self.folders or self.names
            return known[label] if known and 0 <= label < len(known) else str(label)
        return None if label is None else printable(label)

    def unknown(self) -> list[str]:
        """The data set's classes that are none of the model's."""
        return [name for name in self.folders or () if self.index(name) is None]

    @cached_property
    def _by_name(self) -> ClassNames:
        return ClassNames(self.names or ())
