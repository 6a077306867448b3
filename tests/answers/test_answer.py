"""Answers: their words, what is asked of them, and what is left as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import hookmap as hm
from answering_models import built
from hookmap.adapters.wording import Said, Span, Wording

QUESTION = "what is the man holding ?"
ANSWER = "the man in red and the dog"


def picture(height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def lens() -> hm.Lens:
    return hm.Lens(built("llava"))


@pytest.fixture(scope="module")
def answer(lens: hm.Lens) -> hm.Answer:
    return lens.ask(picture(), QUESTION, answer=ANSWER, progress=False)


# ---------------------------------------------------------------- words


class Pieces:
    """A tokenizer whose tokens are bytes, of which some end within a letter."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    def decode(self, ids: list[int], **_: object) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [self.pieces.index(text.encode())] if text.encode() in self.pieces else []}


def wording(*pieces: bytes) -> Wording:
    return Wording(tuple(range(len(pieces))), Pieces(*pieces))


def test_tokens_that_split_a_letter_are_one_word_with_those_that_complete_it() -> None:
    umbrella = "☂".encode()
    said = wording(
        b"a ", umbrella[:1], umbrella[1:2], umbrella[2:], b" and", b" caf", "é".encode()[:1], "é".encode()[1:]
    )
    assert said.text == "a ☂ and café"
    assert [said.of(span) for span in said.spans] == ["a ", "", "", "☂", " and", " caf", "", "é"]
    assert said.tokens_of(said.find("☂")) == (1, 2, 3)
    assert said.tokens_of(said.find("café")) == (5, 6, 7)
    assert [said.of(word) for word in said.words] == ["a", "and", "café"]


def test_where_words_are_not_written_apart_tokens_are_words() -> None:
    said = wording("一个".encode(), "男人".encode(), "拿着".encode(), "红伞".encode())
    assert [said.of(word) for word in said.words] == ["一个", "男人", "拿着", "红伞"]
    assert said.tokens_of(said.find("伞")) == (3,)


def test_words_are_found_as_words_and_by_their_number() -> None:
    said = wording(b"A man", b" in a", b" mantle", b" holds", b" a", b" Man", b"'s", b" red-", b"blue", b" hat.")
    assert said.find("man") == Span(2, 5)
    assert said.find("mantle") == Span(11, 17)
    assert said.find("man", 1) == said.every("man")[0]
    assert said.find("a  mantle").start == 9
    assert [said.of(word) for word in said.words] == [
        "A",
        "man",
        "in",
        "a",
        "mantle",
        "holds",
        "a",
        "Man's",
        "red-blue",
        "hat",
    ]
    with pytest.raises(hm.TargetError, match="stands 1 time in the answer, and occurrence is 2"):
        said.find("mantle", 2)
    with pytest.raises(hm.TargetError, match="did you mean mantle"):
        said.find("mantel")
    with pytest.raises(hm.TargetError, match="its words are A, man, in"):
        said.find("zebra")


def test_the_score_of_a_word_is_that_of_its_definition() -> None:
    said = wording(b"red", b" and", b" blue")
    logits = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    output = Said(logits, said)
    sure = logits.log_softmax(2)
    each = torch.stack([sure[:, t, t] for t in range(3)], 1)
    odds = each[:, 0] - (1 - each[:, 0].exp()).log()
    torch.testing.assert_close(hm.Word("red")(output).double(), odds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hm.Word("and blue")(output).double(), each[:, 1:].sum(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        hm.Word(2)(output).double(), (each[:, 2] - (-each[:, 2].exp()).log1p()), rtol=1e-5, atol=1e-5
    )


def test_a_word_that_is_certain_still_has_a_gradient() -> None:
    logits = torch.tensor([[[90.0, 0.0, 1.0]]], requires_grad=True)
    output = Said(logits, wording(b"red"))
    (slope,) = torch.autograd.grad(hm.Word("red")(output).sum(), logits)
    torch.testing.assert_close(slope[0, 0], torch.tensor([1.0, -0.2689, -0.7311]), rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- answers


def test_an_answer_knows_its_words_and_how_probable_they_are(answer: hm.Answer) -> None:
    assert answer.text == ANSWER == str(answer)
    assert [word.text for word in answer] == ANSWER.split()
    assert [word.occurrence for word in answer] == [1, 1, 1, 1, 1, 2, 1]
    for word in answer:
        assert answer.text[word.start : word.end] == word.text
        assert word.log_probability == pytest.approx(float(answer.log_probabilities[list(word.tokens)].sum()))


def test_words_phrases_tokens_and_contrasts_can_be_explained(answer: hm.Answer) -> None:
    asked = ["red", "the dog", 2, hm.Word("the", occurrence=2)]
    found = answer.explain(asked, progress=False)
    assert [heatmap.target for heatmap in found] == ["red", "the dog", "in", "the (2)"]
    assert found[0].probability == pytest.approx(float(answer.log_probabilities[3].exp()), rel=1e-4)
    assert len(answer.explain(progress=False)) == len(answer)
    contrast = answer.explain("red", versus="blue", progress=False)[0]
    logits = answer.batch.engine.called(answer.batch.x).logits[0, 3].detach()
    red, blue = (answer._said.wording.tokenizer.convert_tokens_to_ids(word) for word in ("red", "blue"))
    assert contrast.target == "red rather than blue"
    assert contrast.score == pytest.approx(float(logits[red] - logits[blue]), abs=1e-4)
    with pytest.raises(hm.TargetError, match="begin with the same tokens"):
        answer.explain("red", versus="red", progress=False)
    with pytest.raises(hm.TargetError, match="token 9 doesn't exist; the answer has 7"):
        answer.explain(9, progress=False)


def test_the_map_is_gradient_times_activation_where_the_language_model_is_given_the_picture(answer: hm.Answer) -> None:
    hirescam, heatmap = answer.explain("dog", method=["hirescam", "elementwise"], progress=False)
    assert answer.explain("dog", progress=False)[0].method.name == "elementwise"
    called, x = answer.batch.engine.called, answer.batch.x
    kept: list[Tensor] = []
    projector = called.plain.model.multi_modal_projector
    hook = projector.register_forward_hook(lambda _, __, out: kept.append(out) or out)
    logits = called(x.clone().requires_grad_()).logits[0, 6].log_softmax(0)
    hook.remove()
    index = called.wording.ids[6]
    odds = logits[index] - (1 - logits[index].exp()).log()
    (slope,) = torch.autograd.grad(odds, kept[0])
    passed = (slope * kept[0]).detach()
    for found, expected in ((hirescam, passed.sum(2)), (heatmap, passed.clamp(min=0).sum(2))):
        tolerance = 1e-3 * float(expected.abs().max())
        torch.testing.assert_close(found.raw, expected.reshape(4, 4), rtol=1e-3, atol=tolerance)


def test_a_words_map_is_the_same_alone_by_the_lens_and_asked_again(lens: hm.Lens, answer: hm.Answer) -> None:
    first = answer.explain("dog", progress=False)[0]
    word = hm.Word("dog", question=QUESTION, answer=ANSWER)
    by_lens = lens.explain(picture(), word, progress=False)[0]
    torch.testing.assert_close(by_lens.raw, first.raw)
    assert torch.equal(lens.again(by_lens).raw, by_lens.raw)
    together = answer.explain(["red", "dog"], progress=False)[1]
    torch.testing.assert_close(together.raw, first.raw)


def test_a_saved_word_is_read_and_asked_again(lens: hm.Lens, answer: hm.Answer, tmp_path: Path) -> None:
    answer.explain(["dog", "red"], progress=False).save(tmp_path / "words.npz")
    read = hm.load(tmp_path / "words.npz")
    assert torch.equal(lens.again(read[0]).raw, read[0].raw)


def test_masking_covers_the_picture_itself(answer: hm.Answer) -> None:
    heatmap = answer.explain("dog", method="occlusion", progress=False)[0]
    assert heatmap.map.shape == (40, 56)
    assert bool(heatmap.raw.any())


def test_several_pictures_are_asked_one_question(lens: hm.Lens) -> None:
    word = hm.Word("red", question=QUESTION, answer="a red dog")
    found = lens.explain([picture(), picture(64, 40)], word, progress=False)
    assert [heatmap.position.image for heatmap in found] == [0, 1]
    assert [tuple(heatmap.map.shape) for heatmap in found] == [(40, 56), (64, 40)]
    failed = lens.explain([picture(), b"no picture"], word, on_error="skip", progress=False)
    assert len(failed) == 1
    assert len(failed.errors) == 1


def test_a_words_map_is_checked_with_its_own_picture_and_answer(lens: hm.Lens, answer: hm.Answer) -> None:
    checked = answer.explain("dog", check=True, progress=False)[0].check
    assert checked is not None
    assert checked.score == pytest.approx(float(answer.log_probabilities[6].exp()), rel=1e-3)
    other = np.ascontiguousarray(picture()[::-1])
    word = hm.Word("dog", question=QUESTION, answer=ANSWER)
    together = lens.explain([picture(), other], word, check=True, progress=False)
    assert together[1].check == lens.explain(other, word, check=True, progress=False)[0].check


def test_the_model_is_left_as_it_came() -> None:
    adapter = built("qwen2_5_vl")
    model = adapter.plain.train()
    model.model.rope_deltas = None
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    answer = hm.Lens(adapter).ask(picture(), QUESTION, max_tokens=3, progress=False)
    answer.explain(0, progress=False)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert model.model.rope_deltas is None


def test_half_precision_answers_too() -> None:
    adapter = built("llava")
    adapter.plain.to(torch.bfloat16)
    answer = hm.Lens(adapter).ask(picture(), QUESTION, max_tokens=3, progress=False)
    assert answer.explain(0, progress=False)[0].raw.isfinite().all()


# ---------------------------------------------------------------- what can't be


def test_what_cannot_be_is_said_in_a_sentence(lens: hm.Lens, answer: hm.Answer) -> None:
    with pytest.raises(hm.ModelError, match="gives no answers in words"):
        hm.Lens().ask(picture(), QUESTION)
    with pytest.raises(hm.TargetError, match="no 'umbrela'; its words are the, man"):
        answer.explain("umbrela", progress=False)
    with pytest.raises(hm.TargetError, match="this model answers in words"):
        lens.explain(picture(), progress=False)
    with pytest.raises(hm.HookmapError, match="0 tokens"):
        lens.ask(picture(), QUESTION, max_tokens=0)
    with pytest.raises(hm.ModelError, match="answers in words"):
        lens.predict(picture())
    with pytest.raises(hm.LayerError, match="chefer follows tokens"):
        answer.explain("dog", method="chefer", progress=False)
    with pytest.raises(hm.ModelError, match="isn't beside its weights"):
        hm.Lens(built("llava").plain).ask(picture(), QUESTION)


def test_methods_that_lay_maps_over_the_input_are_refused_where_there_are_several_views() -> None:
    answer = hm.Lens(built("internvl")).ask(picture(48, 96), QUESTION, max_tokens=2, progress=False)
    with pytest.raises(hm.LayerError, match="scorecam lays feature maps over the input"):
        answer.explain(0, method="scorecam", progress=False)


# ---------------------------------------------------------------- the page


def test_the_page_shows_words_as_text_and_runs_nothing(answer: hm.Answer, lens: hm.Lens, tmp_path: Path) -> None:
    evil = lens.ask(picture(), "<image> <script>alert(1)</script>", answer="red dog", progress=False)
    page = evil.save(tmp_path / "page.html", progress=False).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "script-src &#39;none&#39;" in page or "script-src 'none'" in page
    assert page.count('class="map"') == 2
    some = answer.save(tmp_path / "some.html", ["the dog", "red"], progress=False).read_text()
    assert some.count('class="map"') == 2
    with pytest.raises(hm.TargetError, match="part of another word"):
        answer.save(tmp_path / "no.html", ["the dog", "dog"], progress=False)
    assert not (tmp_path / "no.html").exists()
