from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torchvision
from timm.data import ImageNetInfo
from torchvision.models import ResNet18_Weights

import hookmap as hm
from hookmap.adapters.outputs import class_scores
from hookmap.datasets.labels import TrueClasses
from hookmap.errors import TargetError
from hookmap.targets import Class, Contrast, Probability, ReST, find_class, name_of, resolve
from tiny import images, tiny

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
    assert str(resolve("tabby", LABELS)) == "tabby, tabby cat"
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


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
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


# ---------------------------------------------------------------- names


IMAGENET = ImageNetInfo()
DESCRIBED = [IMAGENET.index_to_description(i, detailed=False) for i in range(1000)]


def test_case_tells_the_dog_from_the_knitwear() -> None:
    """The dog Cardigan (264) became the knitwear (474)."""
    for labels in (DESCRIBED, ResNet18_Weights.DEFAULT.meta["categories"]):
        assert find_class("Cardigan", labels).index == 264
        assert find_class("cardigan", labels).index == 474
        with pytest.raises(TargetError, match=r"could be 2 classes: Cardigan.* \(264\); cardigan \(474\)"):
            find_class("CARDIGAN", labels)


@pytest.mark.parametrize(("word", "indices"), [("crane", (134, 517)), ("maillot", (638, 639)), ("panda", (387, 388))])
def test_a_name_of_two_classes_is_refused_with_their_indices(word: str, indices: tuple[int, int]) -> None:
    with pytest.raises(
        TargetError, match=r"could be 2 classes: .*\({}\); .*\({}\); pass one of their".format(*indices)
    ):
        find_class(word, DESCRIBED)


def test_synsets_are_names_of_imagenet_classes_everywhere() -> None:
    assert find_class("n02123045", DESCRIBED).index == 281
    assert TrueClasses(DESCRIBED, None, 1000).index("n02123045") == 281  # a table's label column
    assert TrueClasses(None, None, 1000).index("n02123045") == 281
    assert TrueClasses(DESCRIBED, ["n02123045", "other"], 1000).index(0) == 281  # a folder's name
    assert TrueClasses(["cat"], None, 1).index("n02123045") is None
    assert TrueClasses(DESCRIBED, None, 1000).index("Cardigan") == 264
    assert TrueClasses(DESCRIBED, None, 1000).index("crane") is None


# ---------------------------------------------------------------- the number of labels


@pytest.mark.parametrize("count", [2, 4, 6])
def test_labels_of_another_number_than_the_classes_are_refused(count: int) -> None:
    lens = hm.Lens(tiny(), labels=[f"name {i}" for i in range(count)])
    with pytest.raises(hm.ModelError, match=f"{count} labels were given, and the model's output has 5 classes"):
        lens.explain(images(1), 0)
    with pytest.raises(hm.ModelError, match=f"{count} labels were given"):
        lens.predict(images(1))


def test_labels_that_a_model_brought_along_for_another_head_are_dropped_with_a_remark() -> None:
    class Labelled(hm.Adapter):
        labels = ("cat", "dog", "bird")

    lens = hm.Lens(Labelled(tiny()))
    with pytest.warns(hm.HookmapWarning, match="3 labels came with the model, and the model's output has 5 classes"):
        heatmap = lens.explain(images(1), 1)[0]
    assert heatmap.target == "class 1"
    assert lens.labels is None
    with pytest.raises(hm.TargetError, match="3 labels came with the model, .* so 'dog' may be none of them"):
        hm.Lens(Labelled(tiny())).explain(images(1), "dog")


def test_a_new_head_of_a_thousand_classes_bears_no_imagenet_names() -> None:
    net = torchvision.models.resnet18(weights=None)
    assert hm.Lens(net).labels is None
    with torch.no_grad():
        net.fc.weight.normal_(0, 0.05)  # as training leaves it: not the numbers that PyTorch starts with
    assert hm.Lens(net).labels[281] == "tabby"
    net.fc = torch.nn.Linear(512, 1000)
    assert hm.Lens(net).labels is None
