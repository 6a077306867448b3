"""A model that was trained to name colours: each word's heatmap lies in its own shape."""

from __future__ import annotations

import pytest
import torch

import hookmap as hm
from shapes_said import CHANCE, Task, scene, trained, untrained

# A word's score is its log-odds, and the rules hold the log-sum-exp of the other words.
pytestmark = pytest.mark.filterwarnings("ignore:the heatmap of .* by lrppixels is incomplete:hookmap.HookmapWarning")


def shares(adapter: hm.VisionLanguage, task: Task, count: int, **how: object) -> tuple[list[float], list[float]]:
    """The mean energy in each word's own shape, and in the other's."""
    lens, generator = hm.Lens(adapter), torch.Generator().manual_seed(123)
    own, other = [[], []], [[], []]
    for _ in range(count):
        one = scene(generator, task)
        if task == "caption":
            answer = lens.ask(one.pixels, "<image>", answer=" and ".join(one.colours), progress=False)
            for shape, heatmap in enumerate(answer.explain(one.colours, progress=False, **how)):
                own[shape].append(one.share(shape, heatmap))
                other[shape].append(one.share(1 - shape, heatmap))
        else:
            for shape in (0, 1):
                answer = lens.ask(
                    one.pixels, f"<image> {one.shapes[shape]} ?", answer=one.colours[shape], progress=False
                )
                heatmap = answer.explain(0, progress=False, **how)[0]
                own[shape].append(one.share(shape, heatmap))
                other[shape].append(one.share(1 - shape, heatmap))
    return [sum(v) / len(v) for v in own], [sum(v) / len(v) for v in other]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_words_of_a_caption_lie_in_their_shapes(seed: int) -> None:
    adapter, right = trained("caption", seed)
    assert right > 0.9
    # Seed 2 moves what it knows to other tokens before the language model reads them: see docs/guides/words.md.
    methods = ["featureablation", "lrppixels", *(["elementwise"] if seed < 2 else [])]
    for method in methods:
        own, other = shares(adapter, "caption", 24, method=method)
        for mine, theirs in zip(own, other, strict=True):
            assert mine >= 2 * CHANCE
            assert mine > 1.5 * theirs


@pytest.mark.parametrize("method", ["elementwise", "lrppixels"])
def test_untrained_no_word_finds_its_shape(method: str) -> None:
    own, other = shares(untrained(), "caption", 24, method=method)
    assert sum(own) / 2 < 1.6 * CHANCE
    assert sum(own) < 1.5 * sum(other)


@pytest.mark.slow
def test_the_answer_to_a_question_lies_in_the_shape_that_was_asked_about() -> None:
    adapter, right = trained("question", 0, 4000)
    assert right > 0.9
    own, other = shares(adapter, "question", 40, method="featureablation")
    assert sum(own) / 2 >= 2 * CHANCE
    assert sum(own) > 1.5 * sum(other)
