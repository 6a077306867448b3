"""Classifiers of images and videos, segmenters, text finders and depth estimators of transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hookmap.adapters.adapter import Adapter
from hookmap.adapters.outputs import Values
from hookmap.errors import ImageError
from hookmap.layers.layouts import Layout


class TransformersAdapter(Adapter):
    """What all of them share: images go in by name, and tokens beside the patches are counted.

    Attributes:
        num_prefix_tokens: class, distillation and register tokens before those of the grid; None if there are none.
        num_suffix_tokens: tokens after them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.num_prefix_tokens = _tokens(model, "cls_token", "distillation_token", "register_tokens") or None
        self.num_suffix_tokens = _tokens(model, "detection_tokens")


class Classifier(TransformersAdapter):
    """Models for image classification, regression included."""

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, K)``."""
        scores: Tensor = self.plain(pixel_values=x).logits
        return scores


class VideoClassifier(TransformersAdapter):
    """Models for video classification: they take frames before channels, and hookmap channels before frames."""

    def forward(self, x: Tensor) -> Tensor:
        """Scores ``(B, K)`` of a batch of clips ``(B, C, T, H, W)``.

        Raises:
            ImageError: for anything but clips, channels first.
        """
        channels = getattr(self.plain.config, "num_channels", x.shape[1])
        if x.ndim != 5 or x.shape[1] != channels:
            swapped = x.ndim == 5 and x.shape[2] == channels
            raise ImageError(
                f"{type(self.plain).__name__} sees clips (B, C, T, H, W), and an input of shape {tuple(x.shape)} came; "
                + (
                    "swap the axes: clip.transpose(1, 2)"
                    if swapped
                    else "pass frames of the video as one tensor: processor(frames, return_tensors='pt')"
                    "['pixel_values'].transpose(1, 2)"
                )
            )
        scores: Tensor = self.plain(**{self.plain.main_input_name: x.transpose(1, 2)}).logits
        return scores


class DividedVideoClassifier(VideoClassifier):
    """TimeSformer: it attends in time and in space by turns; its sequences hold the frames of each place together."""

    def token_layouts(self, size: Sequence[int]) -> Sequence[Layout]:
        """How tokens of a clip of this size (T, H, W) are laid out: all, those of patches, and frame by frame."""
        patch = self.plain.config.patch_size
        grid = (size[0], size[1] // patch, size[2] // patch)
        whole, patches = Layout("tokens", grid, prefix=1, frames="last"), Layout("tokens", grid, frames="last")
        return whole, patches, Layout("tokens", grid, prefix=1, frames="batch")


class Dense(TransformersAdapter):
    """What gives scores for places: explained where the encoder ends, because later layers hold little but those."""

    @property
    def levels(self) -> Sequence[str]:
        """The last stage of the encoder or its backbone that the decoder reads; empty where that isn't known."""
        stages = stages_of(self)
        return stages[: _stages_read(self.plain, len(stages))][-1:]


class SemanticSegmenter(Dense):
    """SegFormer, UPerNet, BEiT, DPT, MobileNet and their like."""

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of each place, ``(B, K, h, w)``, before softmax."""
        scores: Tensor = self.plain(pixel_values=x).logits
        return scores


class TextFinder(Dense):
    """PP-OCR's text detectors: how probable text is in each place, from which post-processing outlines boxes."""

    def forward(self, x: Tensor) -> Tensor:
        """The score of text before sigmoid in each place, ``(B, 1, h, w)``."""
        probability: Tensor = self.plain(pixel_values=x).last_hidden_state
        return probability.logit(eps=torch.finfo(probability.dtype).eps)


class MaskSegmenter(Dense):
    """MaskFormer, Mask2Former, EoMT: each query gives a class and a mask, which compose to a score per class and place.

    Scores are logarithms of the sum over queries of class times mask probability, as the library's own semantic
    post-processing sums them: so the largest is the same class there, and softmax makes shares of them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of each place, ``(B, K, h, w)``."""
        output = self._run(x)
        classes = output.class_queries_logits.softmax(-1)[..., :-1]
        masks = output.masks_queries_logits.sigmoid()
        summed = torch.einsum("bqk,bqhw->bkhw", classes, masks)
        return summed.clamp(min=torch.finfo(summed.dtype).tiny).log()

    def _run(self, x: Tensor) -> Any:
        return self.plain(pixel_values=x)


class TaskSegmenter(MaskSegmenter):
    """OneFormer, asked for its semantic task."""

    def _run(self, x: Tensor) -> Any:
        # "the task is semantic" in CLIP's vocabulary, between its marks.
        words = x.new_tensor([49406, 518, 10549, 533, 29119, 1550, 49407])
        tokens = nn.functional.pad(words, (0, self.plain.config.task_seq_len - len(words)))
        return self.plain(pixel_values=x, task_inputs=tokens.expand(len(x), -1))


class DepthEstimator(Dense):
    """Models for depth estimation: one number per place."""

    def forward(self, x: Tensor) -> Values:
        """Depth, or its inverse where the model gives that, ``(B, 1, h, w)``."""
        depth: Tensor = self.plain(pixel_values=x).predicted_depth
        return Values(depth[:, None])


def matching(model: nn.Module, pattern: str) -> list[str]:
    """The names of the layers that a pattern fits as a whole, in order; mere lists of layers aren't any."""
    return [
        name
        for name, module in model.named_modules()
        if type(module).forward is not nn.Module.forward and re.fullmatch(pattern, name)
    ]


_ENDS = (
    r"hidden_states_norms\.\w+",  # of backbones
    r"stages\.\d+",
    r"(encoder|backbone)\.(layer|layers|block|blocks)\.\d+(\.\d+)?",
    r"(beit|data2vec_vision|dpt|vit)\.(layer|layers)\.\d+",
    r"(encoder|backbone)",
)


def stages_of(model: nn.Module) -> list[str]:
    """The stages of a model's image encoder in order, or the encoder as a whole; empty where none is called so."""
    found = (matching(model, rf"(?!.*(decode|head|neck))(.*\.)?{end}") for end in _ENDS)
    return next((names for names in found if names), [])


def _stages_read(model: Any, count: int) -> int:
    """How many stages of the encoder the decoder reads at most: the others aren't part of the decision."""
    config = model.config
    backbone = getattr(config, "backbone_config", None)
    if getattr(config, "is_hybrid", False) or getattr(backbone, "model_type", "") == "timm_backbone":
        return 0
    if backbone is not None:
        return int(backbone.out_indices[-1])  # 0 is the stem
    if config.model_type in ("beit", "data2vec-vision"):
        return int(config.out_indices[-1]) - 1  # these count from one, and the embeddings too
    read = getattr(config, "backbone_out_indices", None)
    return int(read[-1]) + 1 if read else count


def _tokens(model: nn.Module, *names: str) -> int:
    """How many tokens the parameters of these names hold, ``(1, n, C)`` each."""
    sizes = {name.rpartition(".")[2]: p.shape[1] for name, p in model.named_parameters() if p.ndim == 3}
    return sum(sizes.get(name, 0) for name in names)
