from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from hookmap.errors import TargetError
from hookmap.targets import Class, class_scores, find_class, name_of, resolve

LABELS = [
    "tench, Tinca tinca",
    "tabby, tabby cat",
    "tiger cat",
    "Egyptian cat",
    "Cardigan, Cardigan Welsh corgi",
    "tiger",
]


@pytest.mark.parametrize(
    ("word", "index"),
    [
        ("tabby", 1),
        ("TABBY_CAT", 1),
        ("tinca tinca", 0),
        ("3", 3),
        ("egyptian-cat", 3),
        ("corgi", 4),
        ("tiger", 5),
        ("-1", -1),
    ],
)
def test_a_class_by_word(word: str, index: int) -> None:
    assert find_class(word, LABELS).index == index


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("cat", "could be 3 classes"),
        ("taby", r"did you mean tabby \(1\)"),
        ("zebra crossing", "pass a label or an index"),
    ],
)
def test_what_no_class_is_called(word: str, sentence: str) -> None:
    with pytest.raises(TargetError, match=sentence):
        find_class(word, LABELS)


def test_without_labels_an_index_is_asked_for() -> None:
    with pytest.raises(TargetError, match="pass the class's index"):
        find_class("tabby", None)
    assert find_class("7", None) == Class(7)


def test_scores_are_found_in_what_models_return() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for output in (
        scores,
        (scores, 1),
        [scores],
        {"logits": scores},
        {"out": scores},
        SimpleNamespace(logits=scores),
    ):
        assert class_scores(output) is scores
        assert Class(2)(output).tolist() == [3.0, 6.0]
        assert Class(-1)(output).tolist() == [3.0, 6.0]
    with pytest.raises(TargetError, match="has 3 classes"):
        Class(3)(scores)
    with pytest.raises(TargetError, match=r"shape \(2, 3, 1\)"):
        class_scores(scores[..., None])
    with pytest.raises(TargetError, match="a dict"):
        class_scores({})


def test_functions_are_targets_and_nothing_else_is() -> None:
    def margin(output: torch.Tensor) -> torch.Tensor:
        return output[:, 0] - output[:, 1]

    assert resolve(margin, LABELS) is margin
    assert name_of(margin) == "margin"
    assert str(resolve(1, LABELS)) == "tabby, tabby cat"
    for wrong in (1.5, True, None):
        with pytest.raises(TargetError, match="expected an index, a label or a function"):
            resolve(wrong, LABELS)
