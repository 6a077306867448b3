from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import hookmap as hm
from hookmap.adapters.outputs import class_scores
from hookmap.errors import TargetError
from hookmap.targets import Class, Contrast, Probability, ReST, find_class, name_of, resolve

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
        assert Class(2)(output).tolist() == [3.0, 6.0]
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
        with pytest.raises(TargetError, match="expected an index .*, a label or a function"):
            resolve(wrong, LABELS)


def test_scores_of_a_class_in_other_units() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 0.0]])
    total = sum(torch.tensor([1.0, 2.0, 4.0]).exp())
    assert torch.allclose(Probability(1)(logits), torch.stack([torch.tensor(2.0).exp() / total, torch.tensor(1 / 3)]))
    assert torch.allclose(ReST(2)(logits)[0], 4 + 4 - total.log())
    assert Contrast(2, Probability(0))(logits).tolist() == pytest.approx([4 - torch.e / float(total), -1 / 3])


def test_words_inside_targets_are_looked_up() -> None:
    found = resolve(Contrast("tabby", Probability("tiger")), LABELS)
    assert found == Contrast(Class(1, "tabby, tabby cat"), Probability(5, "tiger"))
    assert str(found) == "tabby rather than probability of tiger"
    with pytest.raises(TargetError, match="no class is called"):
        resolve(Contrast("tabby", "zebra crossing"), LABELS)
    with pytest.raises(TargetError, match=r"pass Probability\('tabby'\) to Lens.explain"):
        Probability("tabby")(torch.zeros(1, 6))


def test_the_predicted_class_stays_the_same_in_changed_copies(lens: hm.Lens, cat, coffee) -> None:
    """Ablating channels may change what is predicted: the target may not."""
    for photo, word in ((cat, "tiger cat"), (coffee, "espresso")):
        asked = [Contrast("predicted", "tabby"), Probability("predicted"), "predicted"]
        spelled = [Contrast(word, "tabby"), Probability(word), word]
        how = {"method": ["gradcam", "ablationcam"], "layer": "blocks.6"}
        for one, other in zip(lens.explain(photo, asked, **how), lens.explain(photo, spelled, **how), strict=True):
            assert torch.equal(one.raw, other.raw)
            assert one.target.split(",")[0] == other.target.split(",")[0]
            assert one.score == other.score


def test_a_contrast_is_the_difference_of_two_maps(lens: hm.Lens, cat) -> None:
    both = lens.explain(cat, [Contrast("tiger cat", "tabby"), "tiger cat", "tabby"])
    difference, this, that = (heatmap.raw for heatmap in both)
    assert torch.allclose(difference, this - that, atol=1e-5)
    assert both[0].target == "tiger cat rather than tabby"
    assert both[0].score == pytest.approx(both[1].score - both[2].score, rel=1e-4)


def test_an_index_that_no_class_has_is_refused_also_a_negative_one(lens: hm.Lens, coffee) -> None:
    for wrong, why in ((-1, "classes are numbered from 0"), (1000, "the model's output has 1000 classes")):
        for target in (wrong, Contrast(0, wrong), Contrast(wrong, "predicted"), Probability(wrong)):
            with pytest.raises(TargetError, match=rf"class {wrong} doesn't exist; {why}"):
                lens.explain(coffee, target)
