"""A tiny LLaVA that is trained to say the colours of two shapes from left to right, or that of the one asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn import functional as F

import hookmap as hm

COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.15, 0.2, 0.9), "yellow": (0.9, 0.85, 0.1)}
SHAPES = ("circle", "square", "cross")
NAMES = ("<pad>", "<image>", "<s>", "</s>", "?", "and", *COLOURS, *SHAPES)
IDS = {name: number for number, name in enumerate(NAMES)}
SIDE, WIDE = 48, 14
Task = Literal["caption", "question"]


@dataclass
class Scene:
    """Two coloured shapes on grey noise."""

    pixels: np.ndarray
    shapes: list[str]
    colours: list[str]
    corners: list[tuple[int, int]]

    def share(self, shape: int, heatmap: hm.Heatmap) -> float:
        """How much of a heatmap's energy lies in one of the shapes."""
        top, left = self.corners[shape]
        energy = heatmap.raw.clamp(min=0)
        if len(energy) < SIDE:  # each cell as it is, because what is interpolated reaches beyond its own
            energy = energy.repeat_interleave(8, 0).repeat_interleave(8, 1)
        return float(energy[top : top + WIDE, left : left + WIDE].sum() / energy.sum().clamp(min=1e-12))


CHANCE = (WIDE / SIDE) ** 2


def _masks() -> dict[str, Tensor]:
    y, x = torch.meshgrid(*[torch.arange(WIDE) - WIDE / 2 + 0.5] * 2, indexing="ij")
    round_ = y**2 + x**2 <= (WIDE / 2) ** 2
    return {"circle": round_, "square": torch.ones_like(round_), "cross": (y.abs() < 2.5) | (x.abs() < 2.5)}


def scene(generator: torch.Generator, task: Task) -> Scene:
    def drawn(count: int) -> int:
        return int(torch.randint(count, (1,), generator=generator))

    picture = 0.5 + 0.08 * torch.randn(3, SIDE, SIDE, generator=generator)
    if task == "caption":  # one to the left of the other
        columns = torch.randperm(3, generator=generator)[:2].sort().values.tolist()
        places = [(drawn(3), column) for column in columns]
    else:
        places = [divmod(cell, 3) for cell in torch.randperm(9, generator=generator)[:2].tolist()]
    shapes = [SHAPES[i] for i in torch.randperm(3, generator=generator)[:2]]
    colours = [list(COLOURS)[i] for i in torch.randperm(4, generator=generator)[:2]]
    corners = [(row * 16 + drawn(3), column * 16 + drawn(3)) for row, column in places]
    for shape, colour, (top, left) in zip(shapes, colours, corners, strict=True):
        part = picture[:, top : top + WIDE, left : left + WIDE]
        noisy = torch.tensor(COLOURS[colour])[:, None, None] + 0.05 * torch.randn(part.shape, generator=generator)
        part[:] = torch.where(_masks()[shape], noisy, part)
    pixels = picture.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return Scene(pixels, shapes, colours, corners)


def untrained(seed: int = 0) -> hm.VisionLanguage:
    words = Tokenizer(WordLevel(IDS, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", IDS["<s>"])])
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=words, **named)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
    torch.manual_seed(seed)
    config = hf.LlavaConfig(
        vision_config=hf.SiglipVisionConfig(
            **sizes, num_hidden_layers=2, image_size=SIDE, patch_size=8, vision_use_head=False
        ),
        text_config=hf.LlamaConfig(
            **sizes,
            num_hidden_layers=3,
            num_key_value_heads=4,
            vocab_size=len(IDS),
            pad_token_id=IDS["<pad>"],
            bos_token_id=IDS["<s>"],
            eos_token_id=IDS["</s>"],
        ),
        image_token_index=IDS["<image>"],
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=36,
    )
    images = hf.SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = hf.LlavaProcessor(images, tokenizer, patch_size=8, vision_feature_select_strategy="full")
    return hm.VisionLanguage(hf.LlavaForConditionalGeneration(config).eval(), processor)


def trained(task: Task = "caption", seed: int = 0, steps: int = 1500) -> tuple[hm.VisionLanguage, float]:
    """The model after training, and how often it said all words of the last batches as they are."""
    adapter = untrained(seed)
    model: Any = adapter.plain.train()
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    right: list[float] = []
    for step in range(steps):
        scenes = [scene(generator, task) for _ in range(64)]
        pixels = torch.stack([torch.from_numpy(one.pixels).permute(2, 0, 1) for one in scenes]).float() / 127.5 - 1
        texts = [_said(one, task, generator) for one in scenes]
        words = len(texts[0]) if task == "caption" else 1
        ids = torch.tensor([[IDS["<s>"], *[IDS["<image>"]] * 36, *text] for text in texts])
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 50)
        logits = model(input_ids=ids[:, :-1], pixel_values=pixels, logits_to_keep=words).logits
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, -words:].flatten())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        right.append(float((logits.argmax(-1) == ids[:, -words:]).all(-1).float().mean()))
        if len(right) > 50 and sum(right[-50:]) / 50 > 0.96:
            break
    model.eval()
    return adapter, sum(right[-50:]) / 50


def _said(one: Scene, task: Task, generator: torch.Generator) -> list[int]:
    if task == "caption":
        return [IDS[one.colours[0]], IDS["and"], IDS[one.colours[1]], IDS["</s>"]]
    asked = int(torch.randint(2, (1,), generator=generator))
    return [IDS[one.shapes[asked]], IDS["?"], IDS[one.colours[asked]]]
