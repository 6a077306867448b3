"""Which class a word names: labels, their synonyms, and ImageNet's synsets."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence

from hookmap._text import closest
from hookmap.errors import TargetError
from hookmap.targets.classes import Class


class ClassNames:
    """What classes are called.

    Args:
        labels: of the classes in order; synonyms after commas.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels
        # Case counts first: the dog "Cardigan" isn't the knitwear "cardigan".
        self._ways = [
            (write, _owners(labels, write, spellings)) for spellings in (_first, _any) for write in (_plain, simplified)
        ]

    def called(self, word: str) -> list[int]:
        """The classes that are called so; several if the word is ambiguous.

        A label and its first synonym come before other synonyms, and what is written alike before what differs in case;
        an ImageNet synset (``n02123045``) is a name where the labels are as many as ImageNet's.
        """
        for write, owners in self._ways:
            if owned := owners.get(write(word)):
                return owned
        index = synset(word, len(self.labels))
        return [] if index is None else [index]


def _plain(text: str) -> str:
    return re.sub(r"[\s_\-]+", " ", text).strip()


def simplified(text: str) -> str:
    """A name without what people write differently: capitals, and how its words are joined."""
    return _plain(text).casefold()


def _first(label: str) -> list[str]:
    return [label, label.split(",")[0]]


def _any(label: str) -> list[str]:
    return label.split(",")


def _owners(
    labels: Sequence[str], write: Callable[[str], str], spellings: Callable[[str], list[str]]
) -> Mapping[str, list[int]]:
    owners: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        for word in dict.fromkeys(map(write, spellings(label))):
            owners.setdefault(word, []).append(i)
    return owners


def synset(word: str, count: int | None) -> int | None:
    """The class of a WordNet synset in the ImageNet of so many classes; None if it isn't one.

    >>> synset("n02123045", 1000), synset("n02123045", 10)
    (281, None)
    """
    return _synsets(count).get(word) if re.fullmatch(r"n\d{8}", word) and count else None


@functools.cache
def _synsets(count: int) -> Mapping[str, int]:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    return {name: i for i, name in enumerate(ImageNetInfo(subset).label_names())} if subset else {}


def find_class(word: str, labels: Sequence[str] | None) -> Class:
    """The class that a word names: a number, a label, one of a label's synonyms, or a word that only one has.

    Raises:
        TargetError: with suggestions if none or several match.

    >>> find_class("tabby", ["goldfish, Carassius auratus", "tabby, tabby cat", "tiger cat"]).index
    1
    """
    if re.fullmatch(r"-?\d+", word.strip()):
        index = int(word)
        if index < 0:
            raise TargetError(f"class {index} doesn't exist; classes are numbered from 0")
        return Class(index)
    if not labels:
        raise TargetError(f"the labels of this model aren't known, so {word!r} can't be found; pass the class's index")
    wanted = simplified(word)
    meant = ClassNames(labels).called(word) or [
        i for i, label in enumerate(labels) if f" {wanted} " in f" {simplified(label)} "
    ]
    if len(meant) == 1:
        return Class(meant[0], labels[meant[0]])
    if meant:
        names = "; ".join(f"{labels[i]} ({i})" for i in meant[:6])
        raise TargetError(f"{word!r} could be {len(meant)} classes: {names}; pass one of their indices")
    synonyms = [[simplified(s) for s in label.split(",")] for label in labels]
    every = {name: i for i, spellings in enumerate(synonyms) for s in spellings for name in (s, *s.split())}
    close = closest(wanted, every, 6)
    indices = list(dict.fromkeys(every[name] for name in close))[:4]
    names = ", ".join(f"{labels[i].split(',')[0]} ({i})" for i in indices)
    hint = f"did you mean {names}?" if names else "pass a label or an index"
    raise TargetError(f"no class is called {word!r}; {hint}")
