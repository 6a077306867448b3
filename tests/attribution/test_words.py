"""Which words of a text make it like a picture: against closed forms, all orders by hand, and a trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.attribution.words import shapley_values
from networks import noise

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")


# ---------------------------------------------------------------- shares


def by_hand(worth: Any, count: int) -> list[float]:
    """What each adds to those before it, on average over all orders, one by one."""
    shares = [0.0] * count
    orders = list(permutations(range(count)))
    for order in orders:
        there = torch.zeros(count, dtype=torch.bool)
        for player in order:
            before = float(worth(there[None])[0])
            there[player] = True
            shares[player] += (float(worth(there[None])[0]) - before) / len(orders)
    return shares


def game(count: int, seed: int) -> Any:
    """Every coalition is worth a number of its own."""
    table = torch.randn(2**count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda rows: table[(rows * 2 ** torch.arange(count)).sum(1)]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_means_over_all_orders(count: int) -> None:
    worth = game(count, count)
    shares = shapley_values(worth, count, budget=64, seed=0)
    assert shares.exact
    assert not shares.errors.any()
    assert shares.values.tolist() == pytest.approx(by_hand(worth, count), abs=1e-12)


def test_drawn_orders_keep_the_sum_and_come_near() -> None:
    worth, count = game(9, 1), 9
    exact = shapley_values(worth, count, budget=512, seed=0)
    asked: list[int] = []

    def counted(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        return worth(rows)

    drawn = shapley_values(counted, count, budget=300, seed=0)
    whole = float(worth(torch.ones(1, count, dtype=torch.bool)) - worth(torch.zeros(1, count, dtype=torch.bool)))
    assert exact.exact
    assert not drawn.exact
    assert sum(asked) <= 302
    assert float(drawn.values.sum()) == pytest.approx(whole, abs=1e-9) == float(exact.values.sum())
    apart = ((drawn.values - exact.values) / drawn.errors).abs()
    assert float(apart.max()) < 4
    assert float(apart.mean()) > 0.1
    again = shapley_values(worth, count, budget=300, seed=0)
    assert torch.equal(again.values, drawn.values)
    assert not torch.equal(shapley_values(worth, count, budget=300, seed=1).values, drawn.values)


def test_where_worths_add_up_one_order_is_enough() -> None:
    weights = torch.linspace(-1, 2, 30, dtype=torch.float64)
    drawn = shapley_values(lambda rows: rows.double() @ weights, 30, budget=1, seed=0)
    assert torch.allclose(drawn.values, weights)
    assert float(drawn.errors.max()) < 1e-12


# ---------------------------------------------------------------- words


class Bag(hm.ImageText):
    """A text is like every picture as far as its words say: weights add up, and a pair adds its own."""

    preprocessing = hm.Preprocessing((8, 8), (8, 8))
    weights: ClassVar = {"cat": 0.3, "red": 0.1, "not": -0.2, "кошка": 0.25, "猫": 0.2, "赤": 0.1}
    pairs: ClassVar = {("not", "cat"): -0.2, ("one", "more", "cat"): 0.3}

    def embed_images(self, x: Tensor) -> Tensor:
        return torch.tensor([[2.0, 0.0]]).expand(len(x), -1)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        cosines = []
        for text in texts:
            words = text.replace(",", "").split() if text.isascii() else {*text.split(), *text}
            pairs = sum(value for pair, value in self.pairs.items() if {*pair} <= {*words})
            cosines.append(0.05 + sum(self.weights.get(word, 0.0) for word in words) + pairs)
        cosine = torch.tensor(cosines)
        return torch.stack([cosine, (1 - cosine**2).sqrt()], 1) * 3


@pytest.fixture
def bag() -> hm.Lens:
    return hm.Lens(Bag(nn.Conv2d(3, 4, 3)))


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)


def test_words_of_a_bag_have_their_own_weights(bag: hm.Lens, photo: np.ndarray) -> None:
    found = bag.words(photo, "a red, Cat  not cat")
    shares = {word.text: word.share for word in found}
    assert [word.text for word in found] == ["a", "red,", "Cat", "not", "cat"]
    # The pair's worth is halved between its two.
    assert shares == pytest.approx({"a": 0, "red,": 0.1, "Cat": 0, "not": -0.3, "cat": 0.2}, abs=1e-5)
    assert found.empty == pytest.approx(0.05, abs=1e-5)
    assert found.score == pytest.approx(0.05, abs=1e-5)
    assert sum(shares.values()) == pytest.approx(found.score - found.empty, abs=1e-6)
    assert found[4].without == pytest.approx(0.05 + 0.1 - 0.2, abs=1e-5)
    assert found["cat"].text == "Cat"
    assert found["RED"].rest == "a Cat  not cat"
    assert [found.text[word.start : word.start + len(word.text)] for word in found] == [w.text for w in found]
    assert [word.text for word in found.strongest[:2]] == ["not", "cat"]


def test_phrases_and_scripts_without_spaces(bag: hm.Lens, photo: np.ndarray) -> None:
    phrases = bag.words(photo, ["a red", "not cat"])
    assert [(word.text, word.start) for word in phrases] == [("a red", 0), ("not cat", 6)]
    assert [word.share for word in phrases] == pytest.approx([0.1, -0.1], abs=1e-5)
    assert [word.text for word in bag.words(photo, "赤い 猫")] == ["赤", "い", "猫"]
    found = bag.words(photo, "赤い猫")
    assert [word.share for word in found] == pytest.approx([0.1, 0, 0.2], abs=1e-5)
    found = bag.words(photo, "большая кошка 🐈")
    assert [word.share for word in found] == pytest.approx([0, 0.25, 0], abs=1e-5)
    assert found.page().width > 300


def test_many_words_have_errors_that_hold(bag: hm.Lens, photo: np.ndarray) -> None:
    text = "on and on and on a red picture of not only one but of one more cat"
    found = bag.words(photo, text, budget=200)
    assert not found.exact
    assert "each within" not in repr(found)
    assert sum(word.share for word in found) == pytest.approx(found.score - found.empty, abs=1e-5)
    # What a pair adds is halved between its two by every order and its reverse; a third of a triple isn't.
    assert found["not"].share == pytest.approx(-0.3, abs=1e-5)
    assert abs(found["more"].share - 0.1) <= 4 * found["more"].error
    assert found["more"].error > 0.01
    assert found["red"].share == pytest.approx(0.1, abs=1e-5)


def test_what_is_saved(bag: hm.Lens, photo: np.ndarray, tmp_path: Path) -> None:
    found = bag.words(photo, "a red cat")
    with Image.open(found.save(tmp_path / "words.png")) as saved:
        assert saved.width == found.page().width
    row = json.loads(json.dumps(found.row))
    assert row["text"] == "a red cat"
    assert [word["text"] for word in row["words"]] == ["a", "red", "cat"]
    assert repr(found) == "WordEvidence('a red cat' in 'image', similarity 0.450: cat +0.300, red +0.100, a +0.000)"
    html = bag.words(photo, "a <b>cat</b>")._repr_html_()
    assert "<b>cat" not in html
    assert "&lt;b&gt;cat" in html
    with pytest.raises(hm.HookmapError, match="can't be written"):
        found.save("/proc/none/words.png")


def test_what_can_t_be_asked_is_said(bag: hm.Lens, photo: np.ndarray, lens: hm.Lens, cat: Path) -> None:
    with pytest.raises(hm.TargetError, match="doesn't read texts"):
        lens.words(cat, "a cat")
    for empty in ("", "  ", []):
        with pytest.raises(hm.TargetError, match="empty text"):
            bag.words(photo, empty)
    with pytest.raises(hm.TargetError, match="one of them is no text"):
        bag.words(photo, ["a", " "])
    with pytest.raises(hm.TargetError, match="has no word 'dog'; it has a, red, cat"):
        bag.words(photo, "a red cat")["dog"]
    with pytest.raises(hm.HookmapError, match="budget is 0"):
        bag.words(photo, "a red cat", budget=0)
    with pytest.raises(hm.ImageError, match="one image"):
        bag.words([photo, photo], "a red cat")
    with pytest.warns(hm.HookmapWarning, match="without its last word 'sofa'"):
        bag.words(photo, "a cat sofa")


class Trained(hm.ImageText):
    """A tower of texts as a user would write it: with weights and dropout, and in training mode."""

    preprocessing = hm.Preprocessing((8, 8), (8, 8))

    def embed_images(self, x: Tensor) -> Tensor:
        return self.plain.pixels(x).mean((2, 3))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return self.plain.text(torch.tensor([[text.count(letter) for letter in "aeiou"] for text in texts]).float())


def test_texts_are_read_in_evaluation_mode_and_without_a_graph(photo: np.ndarray) -> None:
    torch.manual_seed(0)
    net = nn.Module()
    net.pixels, net.text = nn.Conv2d(3, 4, 3), nn.Sequential(nn.Linear(5, 32), nn.Dropout(), nn.Linear(32, 4))
    read = []
    net.text[2].register_forward_hook(lambda layer, given, out: read.append((out.requires_grad, layer.training)))
    lens = hm.Lens(Trained(net), labels=["a cat", "a house"])
    with torch.enable_grad():
        first = lens.words(photo, "a red cat")
        assert [word.share for word in lens.words(photo, "a red cat")] == [word.share for word in first]
    lens.explain(photo, [0, "text:a red cat"], method="hirescam")
    assert {*read} == {(False, False)}
    assert net.text.training
    assert net.text[1].training


FACTORY = """
import hookmap as hm
import torch
from torch import nn


class Letters(hm.ImageText):
    preprocessing = hm.Preprocessing((8, 8), (8, 8))

    def embed_images(self, x):
        return torch.tensor([[1.0, 0.0]]).expand(len(x), -1)

    def embed_texts(self, texts):
        return torch.tensor([[1.0 + 2 * ("cat" in text), 3.0 - ("red" in text)] for text in texts])


def build():
    return Letters(nn.Conv2d(3, 4, 3))
"""


def test_on_the_command_line(hookmap: Any, cat: Path, coffee: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.py").write_text(FACTORY)
    model = ("-m", "letters.py:build")
    said = hookmap("words", cat, "--text", "a red cat", *model)
    assert said.code == 0
    assert said.out.split()[:2] == ["cat", "similarity"]
    assert [line.split()[1] for line in said.out.splitlines()[-3:]] == ["a", "red", "cat"]
    assert (tmp_path / "cat_words.png").exists()
    told = hookmap("words", cat, coffee, "--text", "a red cat", *model, "-o", "out/", "--json")
    images = json.loads(told.out)["images"]
    assert len(images) == 2 == len(list((tmp_path / "out").iterdir()))
    words = images[0]["words"]
    assert sum(word["share"] for word in words) == pytest.approx(images[0]["score"] - images[0]["empty"])
    assert "an empty text" in hookmap("words", cat, "--text", " ", *model).err
    assert "doesn't read texts" in " ".join(hookmap("words", cat, "--text", "a cat").err.split())


# ---------------------------------------------------------------- models of libraries

WORDS = ["a", "photo", "of", "red", "green", "blue", "yellow", "circle", "left", "right", "top", "bottom"]
TOWER: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


def tokenizer() -> Any:
    """Byte pairs as CLIP's, but letter by letter: every word is many tokens."""
    letters = sorted({letter for word in WORDS for letter in word})
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return hf.CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])


def whole_words() -> Any:
    import tokenizers

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS, "<end>"])}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    end = [("<end>", vocabulary["<end>"])]
    fast.post_processor = tokenizers.processors.TemplateProcessing(single="$A <end>", special_tokens=end)
    return hf.PreTrainedTokenizerFast(tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>", eos_token="<end>")


def clip(words: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    count, end = len(words), words.convert_tokens_to_ids(words.eos_token)
    text = {**TOWER, "vocab_size": count, "max_position_embeddings": 48, "eos_token_id": end, "bos_token_id": 0}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()


def siglip(words: Any) -> Any:
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": len(words), "max_position_embeddings": 12, "projection_size": 48}
    vision = {**TOWER, "image_size": 32, "patch_size": 8}
    return hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision)).eval()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_shares_sum_to_the_library_s_own_similarity(kind: str) -> None:
    words = tokenizer() if kind == "clip" else whole_words()
    net, x = (clip if kind == "clip" else siglip)(words), noise(1, 3, 32, 32)
    lens = hm.Lens(hm.ImageText.of(net, tokenizer=words))
    found = lens.words(x, "a red circle")
    padding: dict[str, Any] = {"padding": True} if kind == "clip" else {"padding": "max_length", "max_length": 12}
    with torch.no_grad():
        image = net.get_image_features(pixel_values=x).pooler_output
        similar = {}
        for text in ("", "a", "red", "circle", "a red", "a circle", "red circle", "a red circle"):
            tokens = words([text], return_tensors="pt", **padding)
            given = {key: tokens[key] for key in ("input_ids", "attention_mask")}
            similar[text] = float(F.cosine_similarity(image, net.get_text_features(**given).pooler_output))
    assert found.score == pytest.approx(similar["a red circle"], abs=1e-5)
    assert found.score == pytest.approx(lens.explain(x, "text:a red circle")[0].score, abs=1e-5)
    assert found.empty == pytest.approx(similar[""], abs=1e-5)
    red = (
        (similar["red"] - similar[""]) / 3
        + (similar["a red"] - similar["a"] + similar["red circle"] - similar["circle"]) / 6
        + (similar["a red circle"] - similar["a circle"]) / 3
    )
    assert found["red"].share == pytest.approx(red, abs=1e-5)
    assert found["red"].without == pytest.approx(similar["a circle"], abs=1e-5)
    assert sum(word.share for word in found) == pytest.approx(found.score - found.empty, abs=1e-5)
    contrast = lens.explain(x, found.target("red"))[0]
    assert contrast.score == pytest.approx(similar["a red circle"] - similar["a circle"], abs=1e-5)


def test_words_of_open_clip() -> None:
    library = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    net = library.CLIP(
        embed_dim=24,
        vision_cfg={"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 48},
        text_cfg={"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    ).eval()
    lens, x = hm.Lens(net), noise(1, 3, 48, 48)
    found = lens.words(x, "an unbelievably red café")
    assert len(found) == 4
    assert found.exact
    assert sum(word.share for word in found) == pytest.approx(found.score - found.empty, abs=1e-5)
    read = library.get_tokenizer("ViT-B-32", context_length=8)
    with torch.no_grad():
        wanted = F.cosine_similarity(net.encode_image(x), net.encode_text(read(["an unbelievably red café"])))
    assert found.score == pytest.approx(float(wanted), abs=1e-5)
    with pytest.warns(hm.HookmapWarning, match="77 tokens"):
        lens.words(x, "one two three four five six seven eight nine")


def test_the_model_is_left_as_it_came() -> None:
    net = clip(tokenizer()).train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    hm.Lens(hm.ImageText.of(net, tokenizer=tokenizer())).words(noise(1, 3, 32, 32), "a red circle")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


# ---------------------------------------------------------------- a trained model

COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 230), "yellow": (230, 210, 50)}
PLACES = {"left": (1, 10), "right": (19, 10), "top": (10, 1), "bottom": (10, 19)}
PAIRS = [(colour, place) for colour in COLOURS for place in PLACES]


def drawn(colour: str, place: str, generator: np.random.Generator) -> np.ndarray:
    picture = Image.new("RGB", (32, 32), tuple(generator.integers(90, 150, 3).tolist()))
    x, y = np.array(PLACES[place]) + generator.integers(-1, 2, 2)
    side = int(generator.integers(9, 13))
    ImageDraw.Draw(picture).ellipse((int(x), int(y), int(x) + side, int(y) + side), COLOURS[colour])
    return np.asarray(picture)


PREPARED = hm.Preprocessing((32, 32), (32, 32), (0.5,) * 3, (0.5,) * 3)


def as_input(pictures: Sequence[np.ndarray]) -> Tensor:
    return torch.stack([PREPARED(hm.Picture(picture, "drawn"))[0] for picture in pictures])


STEPS = 400


def fitted(seed: int) -> Any:
    """CLIP's own loss on all pairs of a colour and a place, in three ways of saying them."""
    words, generator = whole_words(), np.random.default_rng(seed)
    net = clip(words, seed)
    optimiser = torch.optim.AdamW(net.parameters(), 2e-3)
    net.train()
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, step / 30) * (1 - step / STEPS)
        ways = ["a photo of {} {}", "{} {}", "a {} {}"]
        texts = [ways[int(generator.integers(3))].format(*pair) for pair in PAIRS]
        x = as_input([drawn(*pair, generator) for pair in PAIRS])
        tokens = words(texts, padding=True, return_tensors="pt")
        given = {key: tokens[key] for key in ("input_ids", "attention_mask")}
        loss = net(**given, pixel_values=x, return_loss=True).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def right(net: nn.Module, seed: int) -> tuple[float, float]:
    """How often the right one of two words of a text has the largest share of five, and a larger one than the wrong."""
    lens = hm.Lens(hm.ImageText.of(net, tokenizer=whole_words()), preprocessing=PREPARED)
    generator, largest, larger = np.random.default_rng(100 + seed), [], []
    for n, (colour, place) in enumerate(PAIRS):
        other = 1 + n % 3
        wrong = (
            list(COLOURS)[(list(COLOURS).index(colour) + other) % 4],
            list(PLACES)[(list(PLACES).index(place) + other) % 4],
        )
        for good, bad, text in (
            (colour, wrong[1], f"a photo of {colour} {wrong[1]}"),
            (place, wrong[0], f"a photo of {wrong[0]} {place}"),
        ):
            found = lens.words(drawn(colour, place, generator), text)
            largest.append(max(found, key=lambda word: word.share).text == good)
            larger.append(found[good].share > found[bad].share)
    return float(np.mean(largest)), float(np.mean(larger))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_word_that_is_right_has_the_largest_share(seed: int) -> None:
    """By chance 20% and 50%."""
    (largest, larger), before = right(fitted(seed), seed), right(clip(whole_words(), seed), seed)
    print(f"trained: largest of five {largest:.0%}, larger than the wrong word's {larger:.0%}; untrained {before}")
    assert largest >= 0.7
    assert larger >= 0.9
    assert largest >= before[0] + 0.3
    assert 0.3 <= before[1] <= 0.7
