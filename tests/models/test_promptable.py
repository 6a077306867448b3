"""SAM, SAM-HQ, SAM 2 and EdgeTAM: the mask of a prompt, held against the library called by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from torch import Tensor, nn

import hookmap as hm
import tiny_transformers
from hookmap.attribution.scoring import resolved_on
from hookmap.explorer.answering import Explorer
from hookmap.explorer.questions import Explain, Predict
from hookmap.models.transformers.processing import read
from hookmap.targets import resolve
from hookmap.targets.prompts import MaskScore
from library_models import by_hand, photos, snapshot, unchanged
from networks import noise
from tiny_transformers import SAM2

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")

NAMES = ["sam", "sam-hq", "sam 2", "edgetam"]
PROMPTS = [
    hm.Prompt(points=[(40, 25)]),
    hm.Prompt(points=[(40, 25), (61.5, 30)], background=[(120, 70)]),
    hm.Prompt(box=(20, 10, 100.25, 60)),
    hm.Prompt(points=[(40, 25)], background=[(120, 70)], box=(20, 10, 100, 60)),
]


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Neither square nor symmetric."""
    return np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)


def model(name: str) -> Any:
    net = tiny_transformers.model(name)
    if name == "edgetam":  # the gradient of PyTorch's fused attention isn't finite here, by hand neither
        net.set_attn_implementation("eager")
    return net


def processor(name: str) -> Any:
    if name.startswith("sam-hq"):
        return hf.SamHQProcessor(processor("sam").image_processor)
    if name == "sam":
        return hf.SamProcessor(hf.SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}))
    return hf.Sam2Processor(hf.Sam2ImageProcessor(size={"height": 128, "width": 128}))


def given(name: str, photo: np.ndarray, x: Tensor, prompt: hm.Prompt) -> dict[str, Any]:
    """The arguments of the library's model for a prompt, its coordinates by the library's own processor."""
    spots = [list(spot) for spot in (*prompt.points, *prompt.background)]
    words: dict[str, Any] = {}
    if spots:
        words["input_points"] = [[spots]]
        words["input_labels"] = [[[1] * len(prompt.points) + [0] * len(prompt.background)]]
    if prompt.box is not None:
        words["input_boxes"] = [[list(prompt.box)]]
    made = processor(name)(images=Image.fromarray(photo), return_tensors="pt", **words)
    kept = {key: made[key].to(x.dtype) if key != "input_labels" else made[key] for key in words}
    return {"pixel_values": x, **kept}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_masks_are_the_library_s_bit_for_bit(name: str, prompt: hm.Prompt, photo: np.ndarray) -> None:
    lens = hm.Lens(model(name))
    batch = lens.engine.only(photo)
    with torch.no_grad():
        theirs = lens.model(**given(name, photo, batch.x, prompt))
    target: MaskScore = resolved_on(batch, prompt)[0][0]
    masks, quality = lens.engine.output(batch).masks(target.points, target.labels, target.on_input)
    assert torch.equal(masks, theirs.pred_masks[:, 0])
    assert torch.equal(quality, theirs.iou_scores[:, 0])
    assert len(masks[0]) == 3
    assert target.chosen == int(theirs.iou_scores[0, 0].argmax())
    own = theirs.pred_masks[0, 0, target.chosen]
    # A picture of 90 x 150 is resized to 38 x 64, and filled up to 64 x 64; those of SAM 2 are pressed into a square.
    inside = own[: len(own) * 38 // 64] if name in ("sam", "sam-hq") else own
    region = inside > 0 if (inside > 0).any() else inside == inside
    heatmap = lens.explain(photo, prompt)[0]
    assert heatmap.score == pytest.approx(float(inside[region].mean()), abs=1e-5)
    assert heatmap.probability == pytest.approx(float(inside[region].sigmoid().mean()), abs=1e-5)
    other = lens.explain(photo, hm.Prompt(prompt.points, prompt.background, prompt.box, mask=1))[0]
    shown = theirs.pred_masks[0, 0, 1, : len(inside)]
    assert other.score == pytest.approx(float(shown[shown > 0].mean() if (shown > 0).any() else shown.mean()), abs=1e-5)


@pytest.mark.parametrize("name", ["sam", "sam-hq"])
def test_gradients_are_those_of_the_library_called_by_hand(name: str, photo: np.ndarray) -> None:
    net = model(name).double()
    lens, prompt = hm.Lens(net), hm.Prompt(points=[(40, 25)], box=(20, 10, 100, 60))
    batch = lens.engine.only(photo)
    weights = resolved_on(batch, prompt)[0][0].weights

    def score(output: Any) -> Tensor:
        best = int(output.iou_scores[0, 0].argmax())
        return (output.pred_masks[0, 0, best] * weights).sum()

    arguments = given(name, photo, batch.x, prompt)
    assert lens.explain(photo, prompt)[0].layer == "vision_encoder.neck.layer_norm1"
    for layer in ("vision_encoder.neck.layer_norm1", "vision_encoder.neck", "vision_encoder.layers.1"):
        gradient = by_hand(net, layer, arguments, score)
        activations: list[Tensor] = []
        handle = net.get_submodule(layer).register_forward_hook(lambda _, __, out, kept=activations: kept.append(out))
        net(**arguments)
        handle.remove()
        product = activations[0].detach() * gradient
        wanted = product[0].sum(0 if "neck" in layer else -1)
        mine = lens.explain(photo, prompt, layer=layer, method="hirescam")[0].raw
        assert torch.allclose(mine, wanted.to(mine), rtol=1e-4, atol=1e-7 * float(wanted.abs().max()) + 1e-12)


@contextmanager
def scaled(net: nn.Module, layers: list[str], factor: float) -> Iterator[None]:
    handles = [net.get_submodule(n).register_forward_hook(lambda _, __, out: out * factor) for n in layers]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", ["sam 2", "edgetam"])
def test_the_levels_together_account_for_all_that_the_decoder_reads(name: str, photo: np.ndarray) -> None:
    """Their maps sum to the slope of the score along all that leaves the encoder, by a central difference."""
    net = model(name).double()
    lens, prompt = hm.Lens(net), hm.Prompt(points=[(40, 25)])
    batch = lens.engine.only(photo)
    target = resolved_on(batch, prompt)[0][0]
    layers = [f"vision_encoder.neck.convs.{i}" for i in range(4)]
    scores = []
    for factor in (1 + 1e-3, 1 - 1e-3):  # the neck adds in float32
        with scaled(net, layers, factor), torch.no_grad():
            output = net(**given(name, photo, batch.x, prompt))
        scores.append(float((output.pred_masks[0, 0, target.chosen] * target.weights).sum()))
    by_layer = lens.explain(photo, prompt, layer=layers, method="hirescam")
    total = sum(float(heatmap.raw.sum()) for heatmap in by_layer)
    assert total == pytest.approx((scores[0] - scores[1]) / 2e-3, rel=5e-4)
    assert lens.explain(photo, prompt)[0].layer == "sum of " + ", ".join(layers)


@pytest.mark.parametrize(("name", "cell"), [("sam", (64 / 150 / 2,) * 2), ("sam 2", (128 / 150 / 4, 128 / 90 / 4))])
def test_a_map_lies_where_the_mask_does(name: str, cell: tuple[float, float], photo: np.ndarray) -> None:
    """Where nothing is mixed between places, what speaks for a part of a mask lies there, on the picture as given.

    Args:
        name: of the model.
        cell: the mask's columns and rows per pixel of the picture.
    """
    net = model(name)
    for part, module in net.named_modules():
        if part.endswith(("attn.proj", "to_image.out_proj", "to_image.o_proj")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    left, top, right, bottom = 95, 50, 140, 85
    columns = slice(round(left * cell[0]), round(right * cell[0]))
    rows = slice(round(top * cell[1]), round(bottom * cell[1]))
    lens = hm.Lens(net)
    target = resolved_on(lens.engine.only(photo), hm.Prompt(points=[(120, 70)]))[0][0]

    def part_of_mask(output: hm.Promptable) -> Tensor:
        return output.masks(target.points, target.labels, None)[0][:, 0, rows, columns].sum((1, 2))

    layer = "vision_encoder.neck" if name == "sam" else None  # behind its convolution
    explained = lens.explain(photo, part_of_mask, layer, "hirescam", part="signed")[0]
    heat = np.abs(explained.numpy())
    assert heat[top:bottom, left:right].min() > 0
    wide, high = 150 / 4 if name == "sam 2" else 150 / 8, 90 / 4 if name == "sam 2" else 150 / 8
    around = np.zeros(heat.shape, bool)
    around[max(0, int(top - high)) : int(bottom + high), max(0, int(left - wide)) : int(right + wide)] = True
    assert heat[~around].sum() <= 0.02 * heat.sum()
    ys, xs = np.indices(heat.shape)
    assert float((xs * heat).sum() / heat.sum()) == pytest.approx((left + right) / 2, abs=8)
    assert float((ys * heat).sum() / heat.sum()) == pytest.approx((top + bottom) / 2, abs=8)


@pytest.mark.parametrize("name", NAMES)
def test_several_prompts_share_one_pass_of_the_encoder(name: str, photo: np.ndarray) -> None:
    net = model(name)
    lens = hm.Lens(net)
    lens.explain(photo, PROMPTS[0])
    passes: list[int] = []
    handle = net.vision_encoder.register_forward_hook(lambda *_: passes.append(1))
    together = lens.explain(photo, PROMPTS)
    handle.remove()
    assert len(passes) == 1
    assert len(together) == len(PROMPTS)
    for prompt, heatmap in zip(PROMPTS, together, strict=True):
        assert torch.allclose(heatmap.raw, lens.explain(photo, prompt)[0].raw, atol=1e-6)
    opened = lens.open(photo)
    opened.explain(PROMPTS[0])
    passes.clear()
    handle = net.vision_encoder.register_forward_hook(lambda *_: passes.append(1))
    again = opened.explain(PROMPTS[2])[0]
    handle.remove()
    assert not passes
    assert torch.allclose(again.raw, together[2].raw, atol=1e-6)


def test_each_image_has_a_mask_of_its_own(photo: np.ndarray) -> None:
    lens = hm.Lens(model("sam"))
    images = [photo, photo[:80, :70], np.ascontiguousarray(photo[:, ::-1])]
    together = lens.explain(images, "point:40,25")
    for image, heatmap in zip(images, together, strict=True):
        assert torch.allclose(heatmap.raw, lens.explain(image, "point:40,25")[0].raw, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_came(name: str, photo: np.ndarray) -> None:
    net = model(name).train()
    before = snapshot(net)
    lens = hm.Lens(net)
    lens.explain(photo, ["point:40,25", "box:20,10,100,60"], method=["hirescam", "rise", "scorecam"], budget=8)
    with pytest.raises(hm.TargetError):
        lens.explain(photo, "point:4000,25")
    scorer = lens.scorer(lens.explain(photo, "point:40,25")[0])
    scores = scorer(lens.engine.only(photo).x.repeat(2, 1, 1, 1))
    assert scores.shape == (2,)
    assert not scores.requires_grad
    assert unchanged(net, before)


def test_words_say_what_targets_say(photo: np.ndarray, tmp_path: Path) -> None:
    words = "prompt: 40,25 61.5,30 not:120,70 box:20,10,100,60 mask:1"
    prompt = hm.Prompt([(40, 25), (61.5, 30)], [(120, 70)], (20, 10, 100, 60), mask=1)
    assert resolve(words, None) == prompt
    assert str(prompt) == "points (40, 25), (61.5, 30), not (120, 70), box (20, 10, 100, 60), mask 1"
    lens = hm.Lens(model("sam"))
    same = lens.explain(
        photo, [words, prompt, "point:40,25", hm.Point(40, 25), hm.Prompt((40, 25)), hm.Box(9, 9, 80, 60)]
    )
    assert torch.equal(same[0].raw, same[1].raw)
    assert torch.equal(same[2].raw, same[3].raw)
    assert torch.equal(same[2].raw, same[4].raw)
    assert [h.where for h in same[2:]] == ["point (40, 25)"] * 3 + ["box (9, 9, 80, 60)"]
    same.save(tmp_path / "masks.npz")
    for heatmap in hm.load(tmp_path / "masks.npz"):
        assert torch.equal(lens.again(heatmap).raw, heatmap.raw)


def test_a_mirrored_prompt_is_at_the_same_pixels() -> None:
    lens = hm.Lens(model("sam 2"))
    x = noise(1, 3, 128, 128)
    prompt = hm.Prompt(points=[(30, 40)], background=[(0, 3)], box=(10, 20, 60, 90))
    target = resolved_on(lens.engine.only(x[0]), prompt)[0][0]
    other = target.mirrored(128)
    lit = torch.zeros(128, 128)
    lit[40, 30] = 1
    assert lit.flip(1)[tuple(other.points[0].long().flip(0))] == 1
    assert other.points[1].tolist() == [127, 3]
    assert other.on_input.tolist() == [67, 20, 117, 90]
    assert torch.equal(other.weights, target.weights.flip(1))
    assert torch.equal(other.mirrored(128).points, target.points)
    assert torch.equal(other.mirrored(128).on_input, target.on_input)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("predicted", "explain a prompt"),
        (3, "explain a prompt"),
        ("point:151,3", "outside of the picture, which is 150x90"),
        ("box:160,0,170,80", "outside of the picture"),
        ("prompt:not:3,4", "without a point or box"),
        ("prompt:3,4 cat", "no part of a prompt"),
        ("prompt:3,4 mask:one", "no part of a prompt"),
        ("prompt:3,4 box:1,2,3", "expected a box"),
        ("prompt:3,4 box:9,2,3,9", "is empty"),
        ("prompt:3,4 box:1,2,3,9 box:1,2,3,9", "at most one box"),
        ("prompt:3,4 mask:3", "the model gives 3"),
        ("point:nan,4", "pixels of the picture"),
        ("everywhere", "points and boxes"),
        ("box:2", "points and boxes"),
        (hm.Point(3, 4, of=1), "leave out of="),
        (hm.Mask(np.ones((90, 150))), "points and boxes"),
    ],
)
def test_what_is_no_prompt_is_refused_in_a_sentence(target: Any, words: str, photo: np.ndarray) -> None:
    with pytest.raises(hm.TargetError, match=words):
        hm.Lens(model("sam")).explain(photo, target)


def test_without_a_prompt_there_is_no_prediction(photo: np.ndarray) -> None:
    with pytest.raises(hm.TargetError, match=r"hm\.Point"):
        hm.Lens(model("sam 2")).predict(photo)


def test_a_prompt_is_for_models_that_take_one(lens: hm.Lens, cat: Path) -> None:
    with pytest.raises(hm.TargetError, match="this isn't one"):
        lens.explain(cat, hm.Prompt((40, 25)))


def test_an_empty_mask_is_explained_over_the_picture_and_said(photo: np.ndarray) -> None:
    net = model("sam")
    for mlp in net.mask_decoder.output_hypernetworks_mlps:
        nn.init.zeros_(mlp.proj_out.weight)
        nn.init.zeros_(mlp.proj_out.bias)
    with pytest.warns(hm.HookmapWarning, match="is empty"):
        hm.Lens(net).explain(photo, "point:40,25", method="scorecam")


def test_pictures_are_prepared_as_by_the_library(cat: Path) -> None:
    for made in (hf.SamImageProcessor(), hf.Sam2ImageProcessor()):
        steps = read(made)
        assert steps is not None
        for pixels in photos(cat):
            mine, geometry = steps(hm.Picture(pixels, "photo"))
            theirs = made(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
            assert mine.shape == theirs.shape
            assert geometry.input == (1024, 1024)
            assert float((mine - theirs).abs().mean()) < 0.02


def test_the_weights_for_videos_are_loaded_for_pictures(photo: np.ndarray, tmp_path: Path) -> None:
    sizes = ("memory_attention_hidden_size", "memory_attention_feed_forward_hidden_size", "memory_encoder_hidden_size")
    more = ("mask_downsampler_embed_dim", "memory_fuser_embed_dim", "memory_fuser_intermediate_dim")
    video = hf.Sam2VideoModel(
        hf.Sam2VideoConfig(
            **SAM2,
            **dict.fromkeys([*sizes, *more], 32),
            memory_encoder_output_channels=16,
            memory_attention_num_layers=1,
            image_size=128,
        )
    )
    with pytest.raises(hm.ModelError, match="Sam2VideoModel takes prompts"):
        hm.Lens(video)
    video.save_pretrained(tmp_path)
    processor("sam 2").image_processor.save_pretrained(tmp_path)
    lens = hm.Lens(str(tmp_path))
    assert isinstance(lens.model, hf.Sam2Model)
    assert torch.equal(lens.model.no_memory_embedding, video.no_memory_embedding)
    assert lens.explain(photo, "point:40,25")[0].raw.shape == (32, 32)


class Sam(nn.Module):
    """Another library's: it holds its parts by the names that Meta gave them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image_encoder = nn.Conv2d(3, 4, 8, 8)
        self.prompt_encoder = nn.Linear(2, 4)

    def masks(self, features: Tensor, points: Tensor) -> Tensor:
        """Features times what the prompt is encoded as."""
        return torch.einsum("kchw,c->khw", features, self.prompt_encoder(points / 64).sum(0))[:, None]


class Mine(hm.Adapter):
    preprocessing = hm.Preprocessing(size=(64, 64), resize=(64, 64))

    def forward(self, x: Tensor) -> hm.Promptable:
        def decode(features: Any, points: Tensor, labels: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
            masks = self.plain.masks(features[0], points)
            return masks, masks.flatten(2).amax(2)

        return hm.Promptable((self.plain.image_encoder(x),), decode)


def test_a_model_of_another_library_is_read_through_an_adapter(photo: np.ndarray) -> None:
    net = Sam()
    with pytest.raises(hm.ModelError, match=r"how Sam takes prompts.*hm\.Promptable"):
        hm.Lens(net)
    lens = hm.Lens(Mine(net))
    heatmap = lens.explain(photo, "point:40,25", layer="image_encoder", method="hirescam")[0]
    features = net.image_encoder(lens.engine.only(photo).x)
    mask = net.masks(features, torch.tensor([[40 * 64 / 150, 25 * 64 / 90]]))[0, 0]
    wanted = mask * (mask > 0) / (mask > 0).sum()
    assert torch.allclose(heatmap.raw, wanted, atol=1e-6)
    assert heatmap.layer == "image_encoder" == lens.explain(photo, "point:40,25")[0].layer


def test_the_interface_asks_for_a_prompt_first(cat: Path) -> None:
    explorer = Explorer({"sam": hm.Lens(model("sam")).engine}, [cat])
    picture = explorer.samples()[0].id
    assert explorer.models()[0].form == "masks"
    assert not explorer.answer(Predict(model="sam", picture=picture)).about.predictions
    (drawn,) = explorer.answer(Explain(model="sam", picture=picture, target="point:40,25")).about.heatmaps
    assert drawn.target == "mask"
    with pytest.raises(hm.TargetError, match="explain a prompt"):
        explorer.answer(Explain(model="sam", picture=picture, target="predicted"))


# ---------------------------------------------------------------- a trained model

SIDE, STEPS = 64, 900


def scene(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture ``(64, 64, 3)`` with two squares, and where each is, ``(2, 64, 64)``."""
    pixels = np.empty((SIDE, SIDE, 3), np.uint8)
    pixels[:] = generator.integers(30, 110, 3)
    where = np.zeros((2, SIDE, SIDE), bool)
    for shape, left in zip(where, generator.permutation([2, 34]).tolist(), strict=True):
        side = int(generator.integers(14, 25))
        x, y = left + int(generator.integers(0, 29 - side)), int(generator.integers(1, 63 - side))
        shape[y : y + side, x : x + side] = True
        pixels[shape] = generator.integers(150, 256, 3)
    return pixels, where


def fitted(seed: int) -> nn.Module:
    """To give the square under a point, of each picture both, and how good each mask is."""
    torch.manual_seed(seed)
    sizes = {"vision_config": {"output_channels": 32}, "prompt_encoder_config": {"hidden_size": 32}}
    config = {name: {**part, **sizes[name]} for name, part in tiny_transformers.SAM.items()}
    config["vision_config"] |= {"num_pos_feats": 16, "initializer_range": 0.02}
    net = hf.SamModel(hf.SamConfig(**config, mask_decoder_config={"hidden_size": 32, **tiny_transformers.MASKS}))
    for part in (net, net.prompt_encoder):  # waves of about the picture's size, as in the published weights
        embedding = net.shared_image_embedding if part is net else part.shared_embedding
        embedding.positional_embedding = nn.Parameter(torch.randn(2, 16, generator=torch.Generator().manual_seed(seed)))
    generator, steps = np.random.default_rng(seed), hm.Lens(net).preprocessing
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, step / 20) * (1 - step / STEPS)
        scenes = [scene(generator) for _ in range(8)]
        x = torch.stack([steps(hm.Picture(pixels, "scene"))[0] for pixels, _ in scenes])
        points = [[[_somewhere(shape, generator)] for shape in where] for _, where in scenes]
        output = net(pixel_values=x, input_points=torch.tensor(points))
        wanted = torch.from_numpy(np.stack([where for _, where in scenes])).float()
        small = nn.functional.avg_pool2d(wanted, 2).round()[:, :, None].expand_as(output.pred_masks)
        sure, inside = output.pred_masks.sigmoid(), output.pred_masks > 0
        both, either = (inside & (small > 0)).sum((3, 4)), (inside | (small > 0)).sum((3, 4))
        dice = 1 - 2 * (sure * small).sum((3, 4)) / (sure + small).sum((3, 4))
        loss = nn.functional.binary_cross_entropy_with_logits(output.pred_masks, small) + dice.mean()
        loss = loss + (output.iou_scores - both / either.clamp(min=1)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def _somewhere(shape: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    ys, xs = shape.nonzero()
    at = int(generator.integers(len(ys)))
    return float(xs[at]), float(ys[at])


def energy(net: nn.Module, seed: int) -> tuple[float, float, float]:
    """Of maps of points on squares: their share on the square, and on the other, over that of an even map; the IoU."""
    lens, generator, own, other, good = hm.Lens(net), np.random.default_rng(100 + seed), [], [], []
    for _ in range(12):
        pixels, where = scene(generator)
        ys, xs = where[0].nonzero()
        at = len(ys) // 2
        prompt = hm.Prompt((float(xs[at]), float(ys[at])))
        heat = lens.explain(pixels, prompt)[0].map.numpy()
        for shares, shape in ((own, where[0]), (other, where[1])):
            shares.append(heat[shape].sum() / max(heat.sum(), 1e-9) / shape.mean())
        target = resolved_on(lens.engine.only(pixels), prompt)[0][0]
        mask = target.weights.repeat_interleave(2, 0).repeat_interleave(2, 1).numpy() > 0
        good.append((mask & where[0]).sum() / (mask | where[0]).sum())
    return float(np.mean(own)), float(np.mean(other)), float(np.mean(good))


@pytest.mark.slow
def test_what_speaks_for_the_mask_of_a_point_lies_on_its_square() -> None:
    own, other, good = energy(fitted(0), 0)
    before = energy(model("sam"), 0)
    print(f"trained: {own:.1f} x even on its square, {other:.1f} on the other, IoU {good:.2f}; untrained {before}")
    assert good > 0.6
    assert own >= 3
    assert own > 3 * other
    assert before[0] < 2
