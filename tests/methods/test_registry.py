"""Methods by name, and your own: what one needs is read from its parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import hookmap as hm
from hookmap._warnings import hearing
from hookmap.methods import INGREDIENTS, METHODS, as_method, find_method, gradient, masking
from tiny import close, explained, images, output_of, tiny


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Grad-CAM", "gradcam"),
        ("GRAD_CAM", "gradcam"),
        ("Grad-CAM++", "gradcampp"),
        ("grad cam ++", "gradcampp"),
        ("Smooth Grad-CAM++", "smoothgradcampp"),
        ("SS-CAM", "sscam"),
        ("RISE", "rise"),
    ],
)
def test_spelling_does_not_matter(written: str, name: str) -> None:
    assert find_method(written) is METHODS[name]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_can_be_found_explained_and_cited(method: hm.methods.Method) -> None:
    assert METHODS[method.name] is method
    assert find_method(method.name) is find_method(method.name.upper()) is method
    if "(" not in method.title:
        assert find_method(method.title) is method or method.title == "Element-wise"
    assert method.needs <= INGREDIENTS.keys()
    assert method.needs
    assert method.summary[0].islower() or method.summary.startswith(("Grad-CAM", "Score-CAM", "FullGrad"))
    assert method.paper or method.family == "baseline"
    assert method.uniform is None or method.uniform in METHODS


def test_what_a_method_looks_at() -> None:
    names = {
        "per layer": {n for n, m in METHODS.items() if not m.per_layer},
        "target": {n for n, m in METHODS.items() if not m.knows_target},
    }
    pixels = {name for name, method in METHODS.items() if method.family == "pixels"} - {"guidedgradcam"}
    masks = {"rise", "drise", "occlusion", "featureablation", "kernelshap", "lime"}
    followed = {"rollout", "chefer", "legrad", "lrppixels"}
    assert names["per layer"] == {*pixels, *masks, *followed, "fullgrad", "fullgradmagnitude", "edges"}
    blind = {"eigencam", "kpcacam", "fem", "sidu", "attention", "rollout"}
    assert names["target"] == {*blind, "random", "edges", "gaussian", "meanactivation"}


def test_a_name_that_there_is_not_brings_those_that_are_like_it() -> None:
    with pytest.raises(hm.HookmapError, match=r"no method 'layer-kam'; did you mean layercam.*hookmap methods"):
        find_method("layer-kam")
    with pytest.raises(hm.HookmapError, match="no method 'zzzz'; there are gradcam, cam, gradcampp"):
        find_method("zzzz")


# ---------------------------------------------------------------- your own


def test_a_method_of_ones_own_in_three_lines() -> None:
    @hm.method
    def mycam(activation: Tensor, gradient: Tensor) -> Tensor:
        """Louder than the others."""
        return (activation * gradient.abs()).sum(1)

    net, x = tiny(), images(2)
    with hm.capture(net, "bend1") as seen:
        seen.differentiate(net(x)[:, 2])
    expected = (seen["bend1"].activation * seen["bend1"].gradient.abs()).sum(1)
    assert close(explained(net, x, "my-CAM"), expected)
    assert torch.equal(explained(net, x, mycam), explained(net, x, "mycam"))
    (heatmap,) = hm.Lens(net).explain(x[:1], method="mycam", layer="bend1")
    assert (heatmap.method.family, heatmap.method.summary) == ("yours", "Louder than the others.")
    assert {"gradcam", "mycam"} == {h.method.name for h in hm.Lens(net).explain(x, method=["gradcam", "mycam"])}


def test_a_method_of_another_name_and_with_facts() -> None:
    @hm.method("Half CAM", summary="an example", rectified=False, signed=True)
    def half(activation: Tensor, gradient: Tensor, share: float = 0.5) -> Tensor:
        return share * gradient_times(activation, gradient)

    def gradient_times(activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).sum(1)

    net, x = tiny(), images()
    (heatmap,) = hm.Lens(net).explain(x, target=2, method="halfcam", layer="norm1")
    assert (heatmap.method.title, heatmap.method.summary) == ("Half CAM", "an example")
    assert close(heatmap.raw, explained(net, x, "hirescam", layer="norm1")[0] / 2)
    assert heatmap.values.min() < 0
    assert "half" not in METHODS


def test_every_ingredient_comes_in_its_shape() -> None:
    """Two images and three targets: B is 6 for methods of batches; those that replay or mask see image by image."""
    net, x, shapes = tiny(), images(2), {}

    def batched(
        activation: Tensor, gradient: Tensor, curvature: Tensor, moments: Tensor, ablated: Tensor, image: Tensor,
        score: Tensor, generator: torch.Generator, budget: int | None = None,
    ) -> Tensor:  # fmt: skip
        shapes.update({word: tuple(value.shape) for word, value in locals().items() if isinstance(value, Tensor)})
        assert (generator.initial_seed(), budget) == (9, 12)
        return activation.sum(1)

    def one_by_one(
        activation: Tensor, gradient: Tensor, image: Tensor, score: Tensor, terms: list, magnitudes: list,
        replay: Any, probe: Any, distribution: Any, cam_of: Any,
    ) -> Tensor:  # fmt: skip
        assert (activation.shape, gradient.shape) == ((1, 6, 12, 16), (3, 6, 12, 16))
        assert (image.shape, score.shape) == ((1, 3, 24, 32), (3,))
        for shares in (terms, magnitudes):
            assert all(len(share) == 3 for share in shares)
        assert torch.allclose(torch.stack([share.reshape(3, -1).sum(1) for share in terms]).sum(0), score)
        assert sum(part.stop - part.start for part in probe.parts(7)) == 7
        for scores in (probe(image), replay(activation)):
            assert torch.allclose(scores, score[:, None])
        everything = distribution(image.repeat(4, 1, 1, 1))
        assert everything.shape == (4, 5)
        assert torch.allclose(everything.sum(1), everything.new_ones(4))
        assert torch.allclose(probe.probability(image)[:2, 0], everything[0, [0, 3]], rtol=1e-12)
        maps, sure = cam_of(image)
        assert (maps.shape, sure.shape) == ((3, 1, 12, 16), (3, 1))
        assert torch.allclose(maps[:, 0], (gradient.mean((2, 3), keepdim=True) * activation).sum(1))
        return gradient.sum(1)

    found = explained(net, x, [batched, one_by_one], [0, 3, "predicted"], seed=9, budget=12)
    grid = (6, 6, 12, 16)
    assert shapes == {
        "activation": grid,
        "gradient": grid,
        "curvature": grid,
        "moments": (6, 3, 6, 12, 16),
        "ablated": (6, 6),
        "image": (6, 3, 24, 32),
        "score": (6,),
    }
    a = output_of(net, "bend1", x)
    assert close(found[::2], a.sum(1).repeat_interleave(3, 0))
    assert "batched" not in METHODS  # passed, not registered


@pytest.mark.filterwarnings("ignore:the heatmap of .* is noisy:hookmap.HookmapWarning")
def test_settings_by_partial_are_part_of_the_name() -> None:
    few, some = partial(masking.rise, budget=5, cells=4), partial(masking.rise, budget=6)
    found = hm.Lens(tiny(torch.float32)).explain(images(dtype=torch.float32), target=2, method=["rise", few, some])
    assert [h.method.name for h in found] == ["rise", "rise(budget=5, cells=4)", "rise(budget=6)"]
    assert found[1].method.title == "RISE (budget=5, cells=4)"
    assert found[1].method.paper == METHODS["rise"].paper
    assert [*found["rise(budget=6)"]] == [found[2]]
    assert len({h.raw.sum().item() for h in found}) == 3
    assert find_method(gradient.layercam) is METHODS["layercam"]


def test_ones_own_can_be_written_again_but_hookmaps_stay() -> None:
    for factor in (1, 2):
        hm.method("mine")(lambda activation, factor=factor: activation.sum(1) * factor)
    net, x = tiny(), images()
    assert close(explained(net, x, "mine"), 2 * output_of(net, "bend1", x).sum(1))
    with pytest.raises(hm.HookmapError, match=r"a method 'gradcam' already; name yours with @hookmap.method\('an"):
        hm.method("Grad-CAM")(lambda activation: activation.sum(1))


def test_an_ingredient_that_there_is_not_is_said() -> None:
    with pytest.raises(hm.HookmapError, match=r"'odd' asks for 'gradients', which is no ingredient.*activation, grad"):

        @hm.method
        def odd(activation: Tensor, gradients: Tensor) -> Tensor: ...

    assert "odd" not in METHODS
    with pytest.raises(hm.HookmapError, match="asks for 'x'"):
        as_method(lambda x: x)


def test_a_method_that_sees_one_image_at_a_time_may_ask_for_what_is_taken_of_a_batch() -> None:
    net, x, shapes = tiny(), images(2), []

    def both(probe: Any, moments: Tensor, curvature: Tensor, ablated: Tensor) -> Tensor:
        shapes.append([tuple(value.shape) for value in (moments, curvature, ablated)])
        return moments[:, 0].sum(1)

    maps = explained(net, x, both, [0, 3])
    assert shapes == [[(2, 3, 6, 12, 16), (2, 6, 12, 16), (2, 6)]] * 2
    assert torch.equal(maps, explained(net, x, lambda moments: moments[:, 0].sum(1), [0, 3]))


def test_an_ingredient_of_ones_own_is_one_class() -> None:
    @hm.methods.ingredient
    class Jump(hm.methods.Ingredient):
        """How much higher the target scores than the mean class."""

        name = "jump"
        description = "the target's score minus the mean of all logits, (B,)"
        of_target = True
        records = hm.methods.Records.ACTIVATIONS

        def of_batch(self, run: hm.methods.Pass, request: Any) -> Tensor:
            assert run.logits is not None
            return run.scores - run.logits.mean(1)

    try:
        net, x = tiny(), images(2)

        @hm.method
        def jumpcam(activation: Tensor, jump: Tensor) -> Tensor:
            return activation.sum(1) * jump[:, None, None]

        made = METHODS["jumpcam"]
        assert (made.needs, made.per_layer, made.knows_target, made.one_by_one) == (
            {"activation", "jump"},
            True,
            True,
            False,
        )
        logits = net(x).detach()
        maps = explained(net, x, "jumpcam", [0, 3]).reshape(2, 2, 12, 16)
        for place, index in enumerate([0, 3]):
            jump = logits[:, index] - logits.mean(1)
            assert close(maps[:, place], output_of(net, "bend1", x).sum(1) * jump[:, None, None])
        with pytest.raises(hm.HookmapError, match="there is an ingredient 'gradient' already"):
            hm.methods.ingredient(type("Mine", (Jump,), {"name": "gradient"}))
    finally:
        INGREDIENTS.pop("jump")


def test_all_leaves_out_what_is_not_defined_here_and_says_why() -> None:
    net, x = tiny(torch.float32), images(dtype=torch.float32)
    with hearing() as said:
        found = hm.Lens(net).explain(x, target=2, layer="bend1", method="all", budget=4)
    left_out = [sentence for sentence in said if not sentence.startswith("the heatmap of")]
    assert len(left_out) == 4
    assert re.match("cam is left out: cam is defined where .* 'bend1' isn't", left_out[0])
    assert left_out[2] == (
        "attention, gradientattention, valuepath, rollout, chefer are left out: attention reads attention, and this "
        "model has none that can be read; take gradcam"
    )
    attention = {name for name, method in METHODS.items() if method.family == "attention"}
    assert {h.method.name for h in found} == METHODS.keys() - {"cam", "gcame"} - attention
    with pytest.raises(hm.LayerError, match="cam is defined where"):
        explained(net, x, "cam")
