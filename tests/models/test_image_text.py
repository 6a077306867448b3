"""Where a text is in a picture: on tiny models of transformers, open_clip and timm, and on one that is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from networks import noise
from tiny import close

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")

WORDS = ["a", "red", "green", "blue", "yellow", "square", "cat", "dog"]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {**SMALL, "vocab_size": 11, "max_position_embeddings": 12, "eos_token_id": 10, "bos_token_id": 1}
VISION = {**SMALL, "image_size": 48, "patch_size": 8}
LABELS = ["a cat", "a dog", "a red square"]


def tokenizer() -> Any:
    """One token per word, and an end."""
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS, "<end>"])}
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    end = ("<end>", vocabulary["<end>"])
    fast.post_processor = tokenizers.processors.TemplateProcessing(single="$A <end>", special_tokens=[end])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", unk_token="<unk>", eos_token="<end>"
    )


def lively(model: nn.Module) -> nn.Module:
    """Weights large enough that tokens, positions and texts matter, as after training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "logit" in name:
                parameter.fill_(0.7 if "bias" in name else 2.0)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval()


def clip() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24)
    return lively(transformers.CLIPModel(config))


def siglip(**text: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.SiglipConfig(text_config={**TEXT, "projection_size": 32, **text}, vision_config=VISION)
    return lively(transformers.SiglipModel(config))


def siglip2() -> Any:
    transformers = pytest.importorskip("transformers")
    vision = {**SMALL, "patch_size": 8, "num_patches": 36}
    config = transformers.Siglip2Config(text_config={**TEXT, "projection_size": 32}, vision_config=vision)
    return lively(transformers.Siglip2Model(config))


def open_clip(**vision: Any) -> Any:
    library = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = library.CLIP(
        embed_dim=24,
        vision_cfg={"layers": 3, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 48, **vision},
        text_cfg={"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    )
    return model.eval()


def pictures(count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return noise(count, 3, 48, 48).to(dtype)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Written out."""
    return (one * other).sum(-1) / (one.pow(2).sum(-1).sqrt() * other.pow(2).sum(-1).sqrt())


# ---------------------------------------------------------------- models of libraries


@pytest.mark.parametrize("build", [clip, siglip, siglip2])
def test_zero_shot_scores_are_the_librarys_own(build: Callable[[], Any]) -> None:
    model, words, x = build(), tokenizer(), pictures()
    lens = hm.Lens(hm.ImageText.of(model, tokenizer=words), labels=LABELS)
    padding = {"padding": True} if build is clip else {"padding": "max_length", "max_length": 12}
    tokens = words(LABELS, return_tensors="pt", **padding)
    given: dict[str, Any] = {"pixel_values": x}
    if build is siglip2:
        from transformers.models.siglip2.image_processing_siglip2 import convert_image_to_patches

        given = {
            "pixel_values": torch.stack([convert_image_to_patches(one, 8) for one in x]),
            "pixel_attention_mask": torch.ones(2, 36, dtype=torch.int32),
            "spatial_shapes": torch.tensor([[6, 6]] * 2),
        }
    with torch.no_grad():
        wanted = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], **given).logits_per_image
    for b, found in enumerate(lens.predict(x)):
        assert [one.label for one in found] == [LABELS[i] for i in wanted[b].argsort(descending=True)]
        for one in found:
            assert one.score == pytest.approx(float(wanted[b, one.index]), rel=1e-4)
            # As the library's pipeline has it: SigLIP says yes or no to each text by itself.
            sure = wanted[b].softmax(0) if build is clip else wanted[b].sigmoid()
            assert one.probability == pytest.approx(float(sure[one.index]), abs=1e-5)
    heatmap = lens.explain(x, "a dog")[1]
    assert (heatmap.index, heatmap.target) == (1, "a dog")
    sure = wanted[1].softmax(0) if build is clip else wanted[1].sigmoid()
    assert heatmap.probability == pytest.approx(float(sure[1]), abs=1e-5)
    shared, alone = lens.explain(x, [hm.Probability("a dog"), hm.Binary("a dog")])[2:]
    assert shared.score == pytest.approx(float(wanted[1].softmax(0)[1]), abs=1e-5)
    assert alone.probability == pytest.approx(float(wanted[1, 1].sigmoid()), abs=1e-5)
    assert heatmap.score == pytest.approx(float(wanted[1, 1]), rel=1e-4)


@pytest.mark.parametrize("build", [clip, siglip])
def test_what_is_predicted_is_what_the_librarys_pipeline_gives(build: Callable[[], Any], cat: Path) -> None:
    transformers, words = pytest.importorskip("transformers"), tokenizer()
    model = clip() if build is clip else siglip(max_position_embeddings=64)  # which the pipeline takes for granted
    kind = transformers.CLIPImageProcessor if build is clip else transformers.SiglipImageProcessor
    sizes = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    processor = kind(**sizes) if build is clip else kind(size={"height": 48, "width": 48})
    pipeline = transformers.pipeline(
        "zero-shot-image-classification", model=model, tokenizer=words, image_processor=processor, device="cpu"
    )
    theirs = pipeline(Image.open(cat), candidate_labels=LABELS, hypothesis_template="{}")
    words.image_processor = processor
    mine = hm.Lens(hm.ImageText.of(model, tokenizer=words), labels=LABELS).predict(cat)[0]
    assert [one.label for one in mine] == [one["label"] for one in theirs]
    assert [one.probability for one in mine] == pytest.approx([one["score"] for one in theirs], abs=1e-3)
    assert (sum(one.probability for one in mine) == pytest.approx(1)) == (build is clip)


def test_zero_shot_scores_of_open_clip() -> None:
    model, x = open_clip(), pictures()
    library = pytest.importorskip("open_clip")
    wanted, _ = model.get_logits(x, library.get_tokenizer("ViT-B-32", context_length=16)(LABELS))
    for b, found in enumerate(hm.Lens(model, labels=LABELS).predict(x)):
        assert [one.score for one in found] == pytest.approx(wanted[b].sort(descending=True).values.tolist(), rel=1e-4)


@pytest.mark.parametrize("build", [clip, siglip])
def test_gradients_of_a_text_are_those_of_a_plain_trace(build: Callable[[], Any]) -> None:
    """Autograd through the library's own features and a cosine that is written out."""
    model, words, x = build().double(), tokenizer(), pictures(dtype=torch.float64)
    lens = hm.Lens(hm.ImageText.of(model, tokenizer=words))
    layer = lens.default_layer(x)
    padding = True if build is clip else "max_length"
    tokens = words(["a red square"], return_tensors="pt", padding=padding, max_length=12, truncation=True)
    with torch.no_grad():
        text = model.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output

    def score(change: Callable[[Tensor], Tensor]) -> Tensor:
        handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: change(output))
        try:
            return cosine(model.get_image_features(pixel_values=x).pooler_output, text)
        finally:
            handle.remove()

    kept: list[Tensor] = []
    with torch.no_grad():
        plain = score(lambda output: kept.append(output.clone()) or output)
    leaf = kept[0].requires_grad_()
    (gradient,) = torch.autograd.grad(score(lambda output: leaf).sum(), leaf)
    mine = lens.features(x, layer, target=hm.Text("a red square"))[layer]
    patches = gradient[:, -36:].mT.reshape(2, 32, 6, 6)
    assert close(mine.gradient, patches, 1e-9)
    # A step along a direction in feature space changes the score by as much.
    step = 1e-6 * noise(*leaf.shape).double()
    step[:, :-36] = 0
    with torch.no_grad():
        change = (score(lambda output: leaf + step) - score(lambda output: leaf - step)) / 2
    assert torch.allclose((gradient * step).sum((1, 2)), change, rtol=1e-4)
    # And the heatmap is what Grad-CAM makes of the two.
    found = lens.explain(x, hm.Text("a red square"), layer, method="gradcam")
    grid = leaf.detach()[:, -36:].mT.reshape(2, 32, 6, 6)
    assert close(found.raw, torch.einsum("bchw,bc->bhw", grid, patches.mean((2, 3))), 1e-9)
    assert [h.score for h in found] == pytest.approx(plain.tolist(), rel=1e-9)
    assert found[0].target == "a red square"
    assert found["a red square"].raw.shape == (2, 6, 6)


def test_the_default_layer_is_in_the_image_tower() -> None:
    for model, layer, layout in (
        (clip(), "vision_model.encoder.layers.2.layer_norm1", "tokens 1+6x6"),
        (siglip(), "vision_model.post_layernorm", "tokens 6x6"),
        (siglip2(), "vision_model.post_layernorm", "tokens 6x6"),
        (open_clip(), "visual.transformer.resblocks.2.ln_1", "tokens 1+6x6"),
        (open_clip(layers=[1, 1, 1, 1], width=8, image_size=64), "visual.layer4", "NCHW 2x2"),
    ):
        x = noise(1, 3, 64, 64) if layout.startswith("NCHW") else pictures(1)
        lens = hm.Lens(model)
        assert lens.default_layer(x) == layer
        assert str(lens.engine.trace(x).layout(layer)) == layout
        assert not any(info.name.startswith("text") or "token_embedding" in info.name for info in lens.layers(x))
        # What isn't pooled has a gradient at every place.
        gradient = lens.features(x, layer, target=hm.Similarity(noise(lens.embed(x).shape[1])))[layer].gradient
        assert gradient.abs().sum(1).min() > 0


def test_open_clip_with_the_sequence_first_gives_the_same_maps() -> None:
    """As its models had it before 2.25."""
    model, x = open_clip(), pictures()
    found = hm.Lens(model).explain(x, hm.Text("a red square"))
    from open_clip.transformer import Transformer

    other = Transformer(32, 3, 4, batch_first=False)
    other.load_state_dict(model.visual.transformer.state_dict())
    model.visual.transformer = other.eval()
    lens = hm.Lens(model)
    assert str(lens.engine.trace(x).layout("visual.transformer.resblocks.1")) == "N B C 1+6x6"
    assert close(lens.explain(x, hm.Text("a red square")).raw, found.raw, 1e-4)


def test_open_clip_over_a_timm_tower_with_a_bias() -> None:
    """As its SigLIP models are."""
    library = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = library.CustomTextCLIP(
        embed_dim=64,
        vision_cfg={"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "image_size": 224},
        text_cfg={"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
        init_logit_bias=-2.0,
    ).eval()
    x = noise(1, 3, 224, 224)
    wanted, _ = model.get_logits(x, library.get_tokenizer("ViT-B-32", context_length=16)(LABELS))
    lens = hm.Lens(model, labels=LABELS)
    found = [one.score for one in lens.predict(x)[0]]
    assert found == pytest.approx(wanted[0].sort(descending=True).values.tolist(), rel=1e-4)
    assert lens.default_layer(x) == "visual.trunk.blocks.11.norm1"
    # Six of twelve blocks are explained together.
    heatmap = lens.explain(x, "text:a cat")[0]
    assert heatmap.layer == "sum of visual.trunk.blocks.6.norm1 to visual.trunk.blocks.11.norm1"
    assert heatmap.method.name == "hirescam"
    apart = lens.explain(x, "text:a cat", layer=[f"visual.trunk.blocks.{i}.norm1" for i in range(6, 12)])
    assert close(heatmap.raw, apart.raw.sum(0), 1e-4)


def test_another_vocabulary_needs_its_tokenizer() -> None:
    library = pytest.importorskip("open_clip")
    model = library.CLIP(
        embed_dim=8,
        vision_cfg={"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 48},
        text_cfg={"context_length": 4, "vocab_size": 30, "width": 16, "heads": 2, "layers": 1},
    )
    with pytest.raises(hm.ModelError, match=r"tokenizer=open_clip\.get_tokenizer\(name\)\) to Lens"):
        hm.Lens(model.eval()).explain(pictures(1), "text:a cat")
    given = hm.ImageText.of(model, tokenizer=lambda texts: torch.tensor([[len(text), 1, 2, 29] for text in texts]))
    assert hm.Lens(given).explain(pictures(1), "text:a cat")[0].target == "a cat"


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_switched_off(mode: Callable[[], Any]) -> None:
    lens, x = hm.Lens(hm.ImageText.of(clip(), tokenizer=tokenizer()), labels=LABELS), pictures(1)
    with mode():
        found = lens.explain(x, ["text:a cat", "a dog"])
    assert found.raw.abs().flatten(1).amax(1).min() > 0
    assert close(found.raw, lens.explain(x, ["text:a cat", "a dog"]).raw, 1e-5)


def towers() -> dict[str, tuple[Callable[[], Any], str]]:
    import timm

    transformers = pytest.importorskip("transformers")
    plain = {key: value for key, value in SMALL.items() if key != "intermediate_size"}
    vit: dict[str, Any] = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return {
        "timm vit": (lambda: timm.create_model("vit_tiny_patch16_224", num_classes=0, **vit), "tokens 1+6x6"),
        "timm siglip": (lambda: timm.create_model("vit_base_patch16_siglip_224", num_classes=0, **vit), "tokens 6x6"),
        "timm dinov2": (lambda: timm.create_model("vit_small_patch14_reg4_dinov2", **vit), "tokens 5+6x6"),
        "timm dinov3": (lambda: timm.create_model("vit_small_patch16_dinov3", **vit), "tokens 5+6x6"),
        "timm clip": (lambda: timm.create_model("vit_base_patch16_clip_224.openai", **vit), "tokens 1+6x6"),
        "timm resnet": (lambda: timm.create_model("resnet10t", num_classes=0), "NCHW 2x2"),
        "dinov2": (
            lambda: transformers.Dinov2Model(transformers.Dinov2Config(**plain, image_size=48, patch_size=8)),
            "tokens 1+6x6",
        ),
        "dinov2 registers": (
            lambda: transformers.Dinov2WithRegistersModel(
                transformers.Dinov2WithRegistersConfig(**plain, image_size=48, patch_size=8, num_register_tokens=4)
            ),
            "tokens 5+6x6",
        ),
        "dinov3": (
            lambda: transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VISION, num_register_tokens=4)),
            "tokens 5+6x6",
        ),
        "clip": (
            lambda: transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION)),
            "tokens 1+6x6",
        ),
        "resnet": (
            lambda: transformers.ResNetModel(
                transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
            ),
            "NCHW 6x6",
        ),
    }


@pytest.mark.parametrize("name", towers())
def test_an_image_tower_alone_is_explained_by_likeness(name: str) -> None:
    build, layout = towers()[name]
    torch.manual_seed(0)
    lens, x = hm.Lens(build().eval()), pictures(2)
    layer = lens.default_layer(x)
    assert str(lens.engine.trace(x).layout(layer)) == layout
    vectors = lens.embed(x)
    assert vectors.ndim == 2
    found = lens.explain(x, [hm.Likeness(x[:1]), hm.Similarity(vectors[0], "first")])
    assert [h.score for h in found[:2]] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert found[2].score == pytest.approx(float(cosine(vectors[1], vectors[0])), abs=1e-5)
    assert (found[0].target, found[1].target) == ("like the other picture", "first")
    assert found[2].raw.abs().max() > 0
    with pytest.raises(hm.TargetError, match=r"gives an embedding of each image and no classes; .*hm\.Likeness"):
        lens.explain(x)
    with pytest.raises(hm.TargetError, match="doesn't read texts, so 'a cat' can't be found"):
        lens.explain(x, "text:a cat")


def test_the_embedding_of_a_tower_is_its_librarys() -> None:
    import timm

    x = pictures()
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=48, depth=1).eval()
    clips = clip()
    with torch.no_grad():
        assert torch.allclose(hm.Lens(vit).embed(x), vit(x), atol=1e-6)
        assert torch.allclose(hm.Lens(clips).embed(x), clips.get_image_features(x).pooler_output, atol=1e-6)
        tower = clips.vision_model
        assert torch.allclose(hm.Lens(tower).embed(x), tower(x).pooler_output, atol=1e-6)


def test_the_tokenizer_and_the_processor_beside_the_weights_are_found(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    model, x = clip(), pictures()
    wanted = hm.Lens(hm.ImageText.of(model, tokenizer=tokenizer()), labels=LABELS).predict(x)
    with pytest.raises(hm.ModelError, match=r"tokenizer of this CLIPModel isn't beside its weights.*hm\.ImageText\.of"):
        hm.Lens(model, labels=LABELS).predict(x)
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    transformers.CLIPImageProcessor(size={"shortest_edge": 50}, crop_size={"height": 48, "width": 48}).save_pretrained(
        tmp_path
    )
    for lens in (
        hm.Lens(transformers.CLIPModel.from_pretrained(tmp_path), labels=LABELS),
        hm.Lens(str(tmp_path), labels=LABELS, device="cpu"),
    ):
        assert (lens.preprocessing.size, lens.preprocessing.resize) == ((48, 48), 50)
        for one, other in zip(lens.predict(x), wanted, strict=True):
            assert [p.label for p in one] == [p.label for p in other]
            assert [p.score for p in one] == pytest.approx([p.score for p in other], rel=1e-4)
    assert lens.name == tmp_path.name  # not the whole path, which figures would show


def test_names_are_read_again_when_the_weights_have_changed() -> None:
    model, x = clip(), pictures(1)
    lens = hm.Lens(hm.ImageText.of(model, tokenizer=tokenizer()), labels=LABELS)
    before = lens.predict(x)[0][0].score
    with torch.no_grad():
        model.text_projection.weight.add_(noise(24, 32))
    after = {p.label: p.score for p in lens.predict(x)[0]}
    fresh = {
        p.label: p.score for p in hm.Lens(hm.ImageText.of(model, tokenizer=tokenizer()), labels=LABELS).predict(x)[0]
    }
    assert after == fresh
    assert before not in after.values()


def test_a_class_derived_from_a_librarys_is_read_like_it() -> None:
    from transformers import CLIPModel

    class Mine(CLIPModel):
        pass

    model, x = clip(), pictures(1)
    mine = Mine(model.config).eval()
    mine.load_state_dict(model.state_dict())
    assert close(hm.Lens(mine).embed(x), hm.Lens(model).embed(x))


def test_two_lenses_with_other_names_share_an_adapter() -> None:
    adapter, x = hm.ImageText.of(clip(), tokenizer=tokenizer()), pictures(1)
    one, other = hm.Lens(adapter, labels=LABELS), hm.Lens(adapter, labels=["a green square"])
    assert len(one.predict(x)[0]) == 3
    assert [p.label for p in other.predict(x)[0]] == ["a green square"]
    with pytest.raises(hm.TargetError, match="no classes"):
        hm.Lens(adapter).predict(x)


def test_the_model_is_left_as_it_was() -> None:
    model, x = clip(), pictures()
    model.train()
    model.text_model.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    lens = hm.Lens(hm.ImageText.of(model, tokenizer=tokenizer()), labels=LABELS)
    lens.explain(x, ["predicted", hm.Text("a cat"), hm.Likeness(x[0])], method=["gradcam", "recipro", "layercam"][:1])
    lens.similar_patches(x, (10, 10))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", ["ablationcam", "rise", "scorecam", "layercam", "fullgrad", "shapleycam"])
def test_methods_that_replay_and_mask_take_texts_too(method: str) -> None:
    lens, x = hm.Lens(hm.ImageText.of(clip(), tokenizer=tokenizer())), pictures(1)
    found = lens.explain(x, hm.Text("a dog"), method=method, budget=8)
    assert found[0].raw.isfinite().all()
    assert found[0].raw.abs().max() > 0


# ---------------------------------------------------------------- targets in words


def test_words_that_cannot_be_targets() -> None:
    lens, x = hm.Lens(hm.ImageText.of(clip(), tokenizer=tokenizer()), labels=LABELS), pictures(1)
    for ask, sentence in (
        (lambda: hm.Text("  "), "an empty text was given"),
        (lambda: hm.Text("a cat")(x), r"pass hm\.Text\('a cat'\) to Lens\.explain"),
        (lambda: hm.Likeness(x)(x), r"pass hm\.Likeness to Lens\.explain"),
        (lambda: hm.Similarity(torch.zeros(3)), r"one vector \(D,\) of finite numbers that aren't all zero"),
        (lambda: hm.Similarity(torch.ones(2, 3)), r"a reference of shape \(2, 3\) came"),
        (lambda: lens.explain(x, hm.Similarity(torch.ones(7))), "has 7 dimensions and the model's embeddings 24"),
        (lambda: lens.explain(x, hm.Contrast("a cat", hm.Text("a dog"))), r"pass hm\.Text for both"),
        (lambda: hm.Lens(clip()).explain(x), r"pass target=hm\.Text\('a red car'\) or, to Lens, labels=\[\.\.\.\]"),
        (lambda: hm.Similarity(torch.ones(3))(torch.ones(1, 3, 2)), r"expected embeddings \(B, D\)"),
    ):
        with pytest.raises(hm.TargetError, match=sentence):
            ask()
    with pytest.raises(
        hm.ModelError, match=r"Linear is no image-text model .* derive your own adapter from hm\.ImageText"
    ):
        hm.ImageText.of(nn.Linear(2, 2))


def test_asking_in_words(tmp_path: Any) -> None:
    from hookmap.targets import resolve

    assert resolve("text: a red car", None) == hm.Text("a red car")
    assert str(resolve("like:photos/car.jpg", None)) == "like car"
    assert str(hm.Likeness("x.png", "the first")) == "like the first"
    contrast = resolve(hm.Contrast("text:a cat, asleep", "text:a cat, awake"), None)
    assert str(contrast) == "a cat, asleep rather than a cat, awake"


# ---------------------------------------------------------------- a trained model

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "yellow": (220, 210, 50)}
SIDE, SQUARE = 48, 12


class Tower(nn.Module):
    """Convolutions to a grid of 12x12, averaged to one vector; a table gives each word's."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 1, 1)
        )
        self.bend = nn.ReLU()
        self.to_space = nn.Linear(24, 16)
        self.text_table = nn.Embedding(len(COLOURS), 16)
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.logit_bias = nn.Parameter(torch.tensor(0.0))

    def encode_image(self, x: Tensor) -> Tensor:
        return self.to_space(self.bend(self.features(x)).mean((2, 3)))


class Colours(hm.ImageText):
    """As a user would add it."""

    preprocessing = hm.Preprocessing((SIDE, SIDE), None, (0.5,) * 3, (0.5,) * 3)

    def embed_images(self, x: Tensor) -> Tensor:
        return self.plain.encode_image(x)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        rows = [list(COLOURS).index(text.split()[-1]) for text in texts]
        return self.plain.text_table.weight.detach()[rows]


def painted(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels ``(N, 48, 48, 3)``, which colours are there ``(N, 4)``, and where each is, ``(N, 4, 48, 48)``."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(90, 160, (count, SIDE, SIDE, 3), generator=generator)
    where = torch.zeros(count, len(COLOURS), SIDE, SIDE, dtype=torch.bool)
    for n in range(count):
        colours = torch.randperm(len(COLOURS), generator=generator)[:2].tolist()
        quarters = torch.randperm(4, generator=generator)[:2].tolist()
        for colour, quarter in zip(colours, quarters, strict=True):
            jitter = torch.randint(0, SIDE // 2 - SQUARE + 1, (2,), generator=generator).tolist()
            top, left = (jitter[0] + SIDE // 2 * (quarter // 2), jitter[1] + SIDE // 2 * (quarter % 2))
            where[n, colour, top : top + SQUARE, left : left + SQUARE] = True
            pixels[n, top : top + SQUARE, left : left + SQUARE] = torch.tensor(list(COLOURS.values())[colour])
    return pixels.byte(), where.flatten(2).any(2), where


def as_input(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255 * 2 - 1


class TokenTower(Tower):
    """A vision transformer whose class token reads its patches."""

    def __init__(self) -> None:
        import timm

        super().__init__()
        size: dict[str, Any] = {"img_size": SIDE, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4}
        self.visual = timm.create_model("vit_tiny_patch16_224", num_classes=16, **size)

    def encode_image(self, x: Tensor) -> Tensor:
        return self.visual(x)


def fitted(model: Tower, steps: int, rate: float) -> Tower:
    """By SigLIP's loss, on which colours a picture holds."""
    generator = torch.Generator().manual_seed(0)
    pixels, there, _ = painted(1024, seed=1)
    x, wanted = as_input(pixels), there.float()
    optimiser = torch.optim.AdamW(model.parameters(), rate)
    for _ in range(steps):
        some = torch.randint(len(x), (48,), generator=generator)
        vectors = F.normalize(model.encode_image(x[some]), dim=1)
        cosines = vectors @ F.normalize(model.text_table.weight, dim=1).T
        loss = F.binary_cross_entropy_with_logits(cosines * model.logit_scale.exp() + model.logit_bias, wanted[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="module")
def trained() -> Tower:
    torch.manual_seed(0)
    return fitted(Tower(), 240, 5e-3)


@pytest.fixture(scope="module")
def trained_on_tokens() -> Tower:
    torch.manual_seed(0)
    return fitted(TokenTower(), 130, 2e-3)


def lens_of(model: nn.Module, **known: Any) -> hm.Lens:
    return hm.Lens(Colours(model), **known)


def share(heatmap: hm.Heatmap, where: Tensor) -> float:
    """How much of the map's energy lies where, times how small that is."""
    energy = heatmap.map.double()
    return float(energy[where].sum() / energy.sum().clamp(min=1e-12)) / float(where.float().mean())


def test_a_text_is_found_where_it_is(trained: Tower) -> None:
    lens = lens_of(trained, labels=[f"a square that is {colour}" for colour in COLOURS])
    pixels, there, where = painted(24, seed=7)
    sure = [{p.index for p in found[:2]} for found in lens.predict([p.numpy() for p in pixels])]
    assert sum(one == set(t.nonzero()[:, 0].tolist()) for one, t in zip(sure, there, strict=True)) >= 22
    for method in ("gradcam", "layercam"):
        shares, others = [], []
        for n, picture in enumerate(pixels):
            here, other = there[n].nonzero()[:, 0].tolist()
            word = list(COLOURS)[here]
            heatmap = lens.explain(picture.numpy(), f"text:{word}", method=method)[0]
            shares.append(share(heatmap, where[n, here]))
            others.append(share(heatmap, where[n, other]))
        mean, elsewhere = (sum(values) / len(values) for values in (shares, others))
        print(f"{method}: {mean:.1f} times its area on the square, {elsewhere:.1f} on the other")
        assert mean >= 3
        assert mean > 3 * elsewhere
    # Zero-shot classes are explained by the same evidence.
    as_class = lens.explain(pixels[0].numpy(), int(there[0].nonzero()[0]))[0]
    assert share(as_class, where[0, int(there[0].nonzero()[0])]) > 3


def test_a_text_is_found_by_what_a_class_token_read(trained_on_tokens: Tower) -> None:
    """By default in all blocks together: the last block alone shows only what was still missing there."""
    lens = lens_of(trained_on_tokens, labels=list(COLOURS))
    pixels, there, where = painted(24, seed=7)
    sure = [{p.index for p in found[:2]} for found in lens.predict([p.numpy() for p in pixels])]
    assert sum(one == set(t.nonzero()[:, 0].tolist()) for one, t in zip(sure, there, strict=True)) >= 22
    ways: dict[str, dict[str, Any]] = {"default": {}, "last": {"layer": "visual.blocks.3.norm1", "method": "gradcam"}}
    means: dict[str, float] = {}
    for way, how in ways.items():
        shares, others = [], []
        for n, picture in enumerate(pixels):
            here, other = there[n].nonzero()[:, 0].tolist()
            heatmap = lens.explain(picture.numpy(), f"text:{list(COLOURS)[here]}", part="positive", **how)[0]
            shares.append(share(heatmap, where[n, here]))
            others.append(share(heatmap, where[n, other]))
        means[way], elsewhere = (sum(values) / len(values) for values in (shares, others))
        print(f"tokens, {way}: {means[way]:.1f} times its area on the square, {elsewhere:.1f} on the other")
        assert way != "default" or means[way] > max(3, 3 * elsewhere)
    assert means["default"] > means["last"]
    assert heatmap.layer == "visual.blocks.3.norm1"
    assert lens.explain(pixels[0].numpy(), "text:red")[0].layer.startswith(
        "sum of visual.blocks.0.norm1, visual.blocks.1"
    )


def test_a_contrast_of_texts_is_the_difference_of_their_maps(trained: Tower) -> None:
    lens = lens_of(trained)
    pixels, there, where = painted(8, seed=9)
    for n, picture in enumerate(pixels):
        one, other = (list(COLOURS)[i] for i in there[n].nonzero()[:, 0].tolist())
        both = hm.Contrast(hm.Text(one), f"text:{other}")
        found = lens.explain(picture.numpy(), [both, hm.Text(one), hm.Text(other)])
        difference, this, that = (heatmap.raw for heatmap in found)
        assert close(difference, this - that, 1e-5)
        assert found[0].target == f"{one} rather than {other}"
        assert found[0].score == pytest.approx(found[1].score - found[2].score, abs=1e-5)
        signed = found[0].geometry.lay_back(difference)
        here, there_too = (where[n, list(COLOURS).index(word)] for word in (one, other))
        assert signed[here].mean() > 0 > signed[there_too].mean()


def test_what_is_like_another_picture(trained: Tower) -> None:
    """Of two squares, the one whose colour another picture shows; what all pictures share has no part in it."""
    lens, shares = lens_of(trained), []
    pixels, there, where = painted(12, seed=11)
    for n, picture in enumerate(pixels):
        here, other = there[n].nonzero()[:, 0].tolist()
        this, that = (
            hm.Likeness([p.numpy() for p in shown(colour)], list(COLOURS)[colour]) for colour in (here, other)
        )
        found = lens.explain(picture.numpy(), [hm.Contrast(this, that), this])
        shares.append(share(found[0], where[n, here]))
        assert [h.target for h in found] == [f"{this} rather than {that}", f"like {list(COLOURS)[here]}"]
    print(f"likeness: {sum(shares) / len(shares):.1f} times its area on the square")
    assert sum(shares) / len(shares) >= 3


def shown(colour: int) -> Tensor:
    """Three pictures that hold a colour, and another."""
    pixels, there, _ = painted(40, seed=100)
    return pixels[there[:, colour]][:3]
