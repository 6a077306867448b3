"""Tiny vision-language models with random weights, one of each family, with processors of their own classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from torch import nn

import hookmap as hm

WORDS = (
    *("what", "is", "the", "man", "holding", "?", "a", "red", "umbrella", "and", "blue", "dog", "in", "his", "hand"),
    *("on", "grass", ".", "sky", "cat", "two", "of", "it", "left", "right"),
)
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
ROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}}
PINPOINTS = [[32, 64], [64, 32], [64, 64], [32, 96]]
SIDES = {"height": 32, "width": 32}


def tokenizer(*marks: str, **named: str) -> hf.PreTrainedTokenizerFast:
    """Words are tokens; ``named`` are marks that tokenizers know by name."""
    names = ["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys([*marks, *named.values()]), *WORDS]
    words = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    known = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=words, **known, extra_special_tokens=named)
    fast.add_special_tokens({"additional_special_tokens": list(marks)} if marks else {})
    return fast


def _text(words: Any) -> dict[str, Any]:
    return {**TEXT, "vocab_size": len(words)}


def _id(words: Any, mark: str) -> int:
    return int(words.convert_tokens_to_ids(mark))


def _clip(**sizes: Any) -> Any:
    return hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIDES, **sizes)


def llava() -> tuple[nn.Module, Any]:
    words = tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**_text(words)),
        image_token_index=_id(words, "<image>"),
    )
    processor = hf.LlavaProcessor(
        _clip(), words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return hf.LlavaForConditionalGeneration(config), processor


def llava_siglip() -> tuple[nn.Module, Any]:
    words = tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.LlamaConfig(**_text(words)),
        image_token_index=_id(words, "<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    images = hf.SiglipImageProcessor(size=SIDES)
    processor = hf.LlavaProcessor(images, words, patch_size=8, vision_feature_select_strategy="full")
    return hf.LlavaForConditionalGeneration(config), processor


def llava_next() -> tuple[nn.Module, Any]:
    words = tokenizer("<image>")
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**_text(words)),
        image_token_index=_id(words, "<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    images = hf.LlavaNextImageProcessor(size={"shortest_edge": 32}, crop_size=SIDES, image_grid_pinpoints=PINPOINTS)
    processor = hf.LlavaNextProcessor(
        images, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return hf.LlavaNextForConditionalGeneration(config), processor


def llava_onevision() -> tuple[nn.Module, Any]:
    words = tokenizer("<image>", "<video>")
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Qwen2Config(**_text(words)),
        image_token_index=_id(words, "<image>"),
        video_token_index=_id(words, "<video>"),
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_9",
    )
    images = hf.LlavaOnevisionImageProcessor(size=SIDES, image_grid_pinpoints=PINPOINTS)
    processor = hf.LlavaOnevisionProcessor(
        images,
        words,
        hf.LlavaOnevisionVideoProcessor(size=SIDES),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _qwen(kind: str, vision: dict[str, Any]) -> tuple[nn.Module, Any]:
    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    words = tokenizer(*marks)
    image, video, start, end = (_id(words, mark) for mark in marks)
    ids = {"image_token_id": image, "video_token_id": video, "vision_start_token_id": start, "vision_end_token_id": end}
    heads = {"head_dim": 16} if kind == "Qwen3VL" else {}
    config = getattr(hf, f"{kind}Config")(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, **vision},
        text_config={**_text(words), **ROPE, **heads},
        **ids,
    )
    images = hf.Qwen2VLImageProcessor(patch_size=4, merge_size=2, min_pixels=32 * 32, max_pixels=48 * 48)
    videos = getattr(hf, "Qwen3VLVideoProcessor" if kind == "Qwen3VL" else "Qwen2VLVideoProcessor")(
        patch_size=4, merge_size=2
    )
    processor: Any = getattr(hf, f"{kind}Processor")(images, words, videos)
    processor.image_token = "<|image_pad|>"
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


def qwen2_vl() -> tuple[nn.Module, Any]:
    return _qwen("Qwen2VL", {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "temporal_patch_size": 2})


def qwen2_5_vl() -> tuple[nn.Module, Any]:
    wide = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "temporal_patch_size": 2}
    return _qwen("Qwen2_5_VL", {**wide, "window_size": 16, "fullatt_block_indexes": [1]})


def qwen3_vl() -> tuple[nn.Module, Any]:
    wide = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "temporal_patch_size": 2}
    return _qwen("Qwen3VL", {**wide, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]})


def paligemma() -> tuple[nn.Module, Any]:
    words = tokenizer("<image>")
    images = hf.SiglipImageProcessor(size=SIDES)
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(images, words)
    text = {**_text(words), "head_dim": 16}
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, projection_dim=32, vision_use_head=False),
        text_config=hf.GemmaConfig(**text),
        image_token_index=_id(words, "<image>"),
        projection_dim=32,
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def gemma3(**crops: Any) -> tuple[nn.Module, Any]:
    words = tokenizer(boi_token="<boi>", eoi_token="<eoi>", image_token="<image>")
    processor = hf.Gemma3Processor(hf.Gemma3ImageProcessor(size=SIDES), words, image_seq_length=4)
    processor.images_kwargs = {**processor.images_kwargs, **crops}
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Gemma3TextConfig(**_text(words), head_dim=16),
        image_token_index=_id(words, "<image>"),
        boi_token_index=_id(words, "<boi>"),
        eoi_token_index=_id(words, "<eoi>"),
        mm_tokens_per_image=4,
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)
    return model, processor


def gemma3_crops() -> tuple[nn.Module, Any]:
    return gemma3(
        do_pan_and_scan=True,
        pan_and_scan_min_crop_size=16,
        pan_and_scan_max_num_crops=3,
        pan_and_scan_min_ratio_to_activate=1.1,
    )


def internvl() -> tuple[nn.Module, Any]:
    words = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    vision = {**VISION, "image_size": [32, 32], "patch_size": [8, 8]}
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**vision),
        text_config=hf.LlamaConfig(**_text(words)),
        image_token_id=_id(words, "<IMG_CONTEXT>"),
    )
    images = hf.GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=4, size=SIDES)
    processor = hf.InternVLProcessor(images, words, hf.InternVLVideoProcessor(size=SIDES), image_seq_length=4)
    return hf.InternVLForConditionalGeneration(config), processor


def _idefics(kind: str, **parts: Any) -> tuple[nn.Module, Any]:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    marks = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows)
    words = tokenizer(*marks)
    module = getattr(hf.models, kind.lower())
    config = getattr(hf, f"{kind}Config")(
        vision_config=getattr(module, f"{kind}VisionConfig")(**VISION),
        text_config=hf.LlamaConfig(**_text(words)),
        image_token_id=_id(words, "<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    images = getattr(hf, f"{kind}ImageProcessor")(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    processor = getattr(hf, f"{kind}Processor")(images, words, image_seq_len=4, **parts)
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


def idefics3() -> tuple[nn.Module, Any]:
    return _idefics("Idefics3")


def smolvlm() -> tuple[nn.Module, Any]:
    return _idefics("SmolVLM", video_processor=hf.SmolVLMVideoProcessor())


FAMILIES: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    made.__name__: made
    for made in (
        llava,
        llava_siglip,
        llava_next,
        llava_onevision,
        qwen2_vl,
        qwen2_5_vl,
        qwen3_vl,
        paligemma,
        gemma3,
        gemma3_crops,
        internvl,
        idefics3,
        smolvlm,
    )
}


# ---------------------------------------------------------------- words that don't read the picture's tokens in a row


def florence2() -> tuple[nn.Module, Any]:
    words = tokenizer(image_token="<image>")
    tower = hf.models.florence2.Florence2VisionConfig(
        embed_dim=[8, 16, 16, 32],
        num_heads=[1, 1, 2, 2],
        num_groups=[1, 1, 2, 2],
        depths=[1, 1, 1, 1],
        window_size=4,
        projection_dim=32,
        max_position_embeddings=8,
        max_temporal_embeddings=8,
    )
    text = hf.BartConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=len(words),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    config = hf.Florence2Config(vision_config=tower, text_config=text, image_token_id=_id(words, "<image>"))
    images = hf.CLIPImageProcessor(size={"height": 128, "width": 128}, do_center_crop=False)
    images.image_seq_length = 17
    processor = hf.Florence2Processor(images, words)
    model = hf.Florence2ForConditionalGeneration(config)
    model.generation_config.eos_token_id = None
    model.generation_config.bad_words_ids = [[2]]
    return model, processor


def blip_2() -> tuple[nn.Module, Any]:
    words = tokenizer()
    processor = hf.Blip2Processor(hf.BlipImageProcessor(size=SIDES), words, num_query_tokens=4)
    former = hf.Blip2QFormerConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, encoder_hidden_size=32
    )
    text = hf.OPTConfig(
        vocab_size=len(words),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = hf.Blip2Config(
        vision_config=hf.Blip2VisionConfig(**VISION),
        qformer_config=former,
        text_config=text,
        num_query_tokens=4,
        image_token_index=_id(words, "<image>"),
    )
    return hf.Blip2ForConditionalGeneration(config), processor


def git() -> tuple[nn.Module, Any]:
    words = tokenizer()
    config = hf.GitConfig(
        vision_config=VISION,
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return hf.GitForCausalLM(config), hf.GitProcessor(_clip(), words)


def blip() -> tuple[nn.Module, Any]:
    words = tokenizer()
    text = {**_text(words), "encoder_hidden_size": 32, "sep_token_id": 2}
    config = hf.BlipConfig(vision_config=VISION, text_config=text, image_text_hidden_size=32)
    return hf.BlipForConditionalGeneration(config), hf.BlipProcessor(hf.BlipImageProcessor(size=SIDES), words)


def kosmos2() -> tuple[nn.Module, Any]:
    marks = ("<image>", "</image>", "</chunk>", "</line>", "</doc>", "<grounding>", "<phrase>", "</phrase>")
    marks += ("<object>", "</object>", "</delimiter_of_multi_objects/>")
    words = tokenizer(*marks)
    text = hf.models.kosmos2.configuration_kosmos2.Kosmos2TextConfig(
        vocab_size=len(words) + 64,
        embed_dim=32,
        layers=2,
        ffn_dim=48,
        attention_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = hf.Kosmos2Config(vision_config=VISION, text_config=text.to_dict(), latent_query_num=64)
    processor = hf.Kosmos2Processor(_clip(), words, num_patch_index_tokens=4)
    return hf.Kosmos2ForConditionalGeneration(config), processor


TOWERS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    made.__name__: made for made in (florence2, blip_2, git, blip, kosmos2)
}


def built(family: str) -> hm.VisionLanguage:
    """A model of a family whose weights are large enough that pictures and words matter, and its processor."""
    torch.manual_seed(0)
    model, processor = {**FAMILIES, **TOWERS}[family]()
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return hm.VisionLanguage(model, processor)
