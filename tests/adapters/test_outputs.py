"""How outputs are read: names that say what they are, agreement with labels, shapes; probabilities; mixed samples."""

from __future__ import annotations

import warnings
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from hookmap.adapters.outputs import read
from networks import noise

CLASSES = 10


class Giving(nn.Module):
    """A small classifier whose output is made of its feature map and its scores."""

    def __init__(self, give: Any, classes: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3, 2, 1)
        self.head = nn.Linear(16, classes)
        self.give = give

    def forward(self, x: Tensor) -> Any:
        features = self.conv(x).relu()
        vectors = features.mean((2, 3))
        return self.give(features, vectors, 4 * self.head(vectors))


Pair = namedtuple("Pair", ["aux_logits", "logits"])

READ = {
    "a name that says scores beside one that says features": lambda f, v, s: {"features": v, "scores": s},
    "a feature map and scores": lambda f, v, s: (f, s),
    "a name among nameless": lambda f, v, s: (v, {"class_logits": s}),
    "a named tuple with an auxiliary head": lambda f, v, s: Pair(v, s),
    "features, and something without a name that speaks": lambda f, v, s: {"x_feat": v, "y": s},
    "camel case": lambda f, v, s: {"poolerOutput": v, "predLogits": s},
    "a convolutional head": lambda f, v, s: s[..., None, None],
}


@pytest.mark.parametrize("way", READ)
def test_scores_are_found_among_other_outputs(way: str) -> None:
    """They were read as 16 classes, or as a segmenter's."""
    net, x = Giving(READ[way]), noise(2, 3, 24, 24)
    with torch.no_grad():
        scores = Giving(lambda f, v, s: s)(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lens = hm.Lens(net)
        found = lens.explain(x)
    assert [heatmap.index for heatmap in found] == scores.argmax(1).tolist()
    assert [heatmap.score for heatmap in found] == pytest.approx(scores.amax(1).tolist(), rel=1e-5)
    assert [heatmap.probability for heatmap in found] == pytest.approx(scores.softmax(1).amax(1).tolist(), rel=1e-5)
    assert [best[0].index for best in lens.predict(x)] == scores.argmax(1).tolist()


def test_of_two_vectors_that_of_the_labels_is_read_and_without_labels_the_choice_is_remarked() -> None:
    net, x = Giving(lambda f, v, s: (v, s)), noise(1, 3, 24, 24)
    names = [f"name {i}" for i in range(CLASSES)]
    assert hm.Lens(net, labels=names).explain(x)[0].target.startswith("name ")
    with pytest.warns(hm.HookmapWarning, match=r"'0' \(1, 16\), '1' \(1, 10\)\), and '0' is read; pass labels="):
        hm.Lens(net).explain(x)


def test_dense_scores_in_the_inputs_own_size_are_no_feature_map() -> None:
    dense, vector, small = torch.randn(1, 4, 24, 24), torch.randn(1, 3), torch.randn(1, 4, 6, 6)
    assert read((small, dense), None, (24, 24)).place == "1"
    assert read((small, vector), None, (24, 24)).place == "1"
    assert read({"aux": dense, "out": dense}, None, (24, 24)).place == "out"
    assert read((small, vector[:, 0]), None, (24, 24)).form == "classes"


# ---------------------------------------------------------------- probabilities


def test_a_softmax_inside_the_model_is_not_applied_again() -> None:
    """A probability of .30 became one of .12."""
    net, x = Giving(lambda f, v, s: s.softmax(1)), noise(2, 3, 24, 24)
    with torch.no_grad():
        sure = net(x)
    lens = hm.Lens(net)
    with pytest.warns(hm.HookmapWarning, match="sum to one.*no softmax"):
        found = lens.explain(x, ["predicted", hm.Probability(3), hm.Binary(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lens.predict(x)
    for b in range(2):
        top, other, binary = (h for h in found if h.position.image == b)
        assert top.probability == top.score == pytest.approx(float(sure[b].max()), rel=1e-6)
        assert other.probability == pytest.approx(float(sure[b, 3]), rel=1e-6)
        assert other.score == pytest.approx(float(sure[b, 3]), rel=1e-6)
        assert binary.score == pytest.approx(float(sure[b, 2].log() - (1 - sure[b, 2]).log()), rel=1e-4)
    assert lens.predict(x)[0][0].probability == pytest.approx(float(sure[0].max()), rel=1e-6)


def test_maps_of_a_probability_are_those_of_the_logits_softmax() -> None:
    x = noise(1, 3, 24, 24)
    inside, outside = Giving(lambda f, v, s: s.softmax(1)), Giving(lambda f, v, s: s)
    with pytest.warns(hm.HookmapWarning, match="sum to one"):
        found = hm.Lens(inside).explain(x, 3, layer="conv")[0]
    wanted = hm.Lens(outside).explain(x, hm.Probability(3), layer="conv")[0]
    torch.testing.assert_close(found.raw, wanted.raw, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_sigmoid_inside_the_model_is_not_applied_again(classes: int) -> None:
    net, x = Giving(lambda f, v, s: s.sigmoid(), classes), noise(3, 3, 24, 24)
    with torch.no_grad():
        sure = net(x)
    with pytest.warns(hm.HookmapWarning, match="by a sigmoid"):
        found = hm.Lens(net).explain(x, 0)
    assert [h.probability for h in found] == pytest.approx(sure[:, 0].tolist(), rel=1e-5)
    assert [h.score for h in found] == pytest.approx(sure[:, 0].tolist(), rel=1e-5)


def _without_gradients(scores: Tensor) -> Tensor:
    with torch.no_grad():
        return scores.sigmoid()[:, None].clone()[:, 0]


SIGMOIDS = {
    "under no_grad": _without_gradients,
    "in place": lambda s: s.sigmoid_(),
    "of two": lambda s: torch.special.expit(s.double()).float().unsqueeze(1).transpose(1, 2).squeeze(2),
}
OTHERS = {
    "of something before": lambda s: s.sigmoid() * s.sigmoid(),
    "changed in place": lambda s: s.sigmoid().mul_(0.5),
    "no sigmoid": lambda s: s.tanh().abs(),
}


@pytest.mark.parametrize("way", [*SIGMOIDS, *OTHERS])
def test_a_sigmoid_is_known_by_what_runs(way: str) -> None:
    """Where it ran without gradients its probabilities were taken for logits."""
    lens, x = hm.Lens(Giving(lambda f, v, s: (SIGMOIDS | OTHERS)[way](s))), noise(1, 3, 24, 24)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        best = lens.predict(x)[0][0]
    assert (best.probability == best.score) == (way in SIGMOIDS)
    assert any("by a sigmoid" in str(warning.message) for warning in said) == (way in SIGMOIDS)


def test_yes_or_no_of_a_probability_turns_at_one_half() -> None:
    net, x = Giving(lambda f, v, s: (s - 2).sigmoid(), 1), noise(1, 3, 24, 24)
    with torch.no_grad():
        sure = float(net(x))
    assert sure < 0.5
    with pytest.warns(hm.HookmapWarning):
        heatmap = hm.Lens(net, labels=["cat"]).explain(x)[0]
    assert heatmap.target == "not cat"
    assert heatmap.probability == pytest.approx(1 - sure, rel=1e-5)


def test_logits_that_lie_in_the_unit_interval_by_chance_stay_logits() -> None:
    net, x = Giving(lambda f, v, s: s * 0.01 + 0.5), noise(1, 3, 24, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heatmap = hm.Lens(net).explain(x)[0]
    with torch.no_grad():
        assert heatmap.probability == pytest.approx(float(net(x).softmax(1).max()), rel=1e-5)


def test_the_mask_of_a_sigmoid_is_where_it_is_probable() -> None:
    """A segmenter of one class that ends in a sigmoid said yes everywhere."""

    class Mask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).relu()).sigmoid()

    net, x = Mask(), noise(1, 3, 24, 24)
    with torch.no_grad():
        sure = net(x)[0, 0]
    own = sure > 0.5
    assert 0 < own.sum() < own.numel()
    lens = hm.Lens(net)
    with pytest.warns(hm.HookmapWarning, match="by a sigmoid"):
        heatmap = lens.explain(x, 0)[0]
    assert heatmap.probability == pytest.approx(float(sure[own].mean()), rel=1e-5)
    assert lens.predict(x)[0][0].share == pytest.approx(float(own.float().mean()))


# ---------------------------------------------------------------- samples that influence each other


class Normed(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, 1, 1), norm, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


class Centred(nn.Module):
    """A mixing that no flag shows."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


MIXING = {
    "batch norm without running statistics": lambda: Normed(nn.BatchNorm2d(8, track_running_stats=False)),
    "an own mean over the batch": lambda: Normed(Centred()),
}


@pytest.mark.filterwarnings("ignore:the heatmap of:hookmap.HookmapWarning")
@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
@pytest.mark.parametrize("way", MIXING)
def test_samples_that_influence_each_other_run_one_by_one_and_it_is_said_once(way: str) -> None:
    net = MIXING[way]()
    x = noise(3, 3, 16, 16) * torch.tensor([1.0, 4.0, 0.3])[:, None, None, None]
    lens = hm.Lens(net)
    with pytest.warns(hm.HookmapWarning, match="influence each other"):
        found = lens.explain(x, 1, layer="conv", method=["gradcam", "rise"], budget=40, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = [best[0].score for best in lens.predict(x)]
    for b in range(3):
        single = x[b : b + 1]
        alone = hm.Lens(net).explain(single, 1, layer="conv", method=["gradcam", "rise"], budget=40, progress=False)
        for own, wanted in zip([h for h in found if h.position.image == b], alone, strict=True):
            assert torch.equal(own.raw, wanted.raw)
        assert scores[b] == hm.Lens(net).predict(single)[0][0].score


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per:UserWarning")
def test_dynamic_quantisation_takes_its_range_from_all_samples_so_they_run_one_by_one() -> None:
    plain = Normed(nn.Identity())
    net = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    x = noise(2, 3, 16, 16) * torch.tensor([1.0, 9.0])[:, None, None, None]
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(x[:1]), net(x[1:])])
    assert (together - alone).abs().max() > 1e-3 * alone.abs().max()
    with pytest.warns(hm.HookmapWarning, match="influence each other"):
        found = hm.Lens(net).predict(x)
    assert [best[0].score for best in found] == alone.amax(1).tolist()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), nn.Dropout(0.5), nn.GroupNorm(2, 8)])
def test_models_whose_samples_are_independent_run_together_without_a_word(norm: nn.Module) -> None:
    net = Normed(norm)
    batches: list[int] = []
    net.register_forward_hook(lambda module, inputs, output: batches.append(len(inputs[0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hm.Lens(net).explain(noise(3, 3, 24, 32), 1, method="hirescam", layer="conv")
    assert batches[-1] == 3
