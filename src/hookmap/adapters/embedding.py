"""Models that give one vector per image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from hookmap.adapters.adapter import Adapter
from hookmap.adapters.outputs import Embeddings
from hookmap.errors import ModelError
from hookmap.images.preprocessing import Preprocessing

_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")


class Embedder(Adapter):
    """Any model whose output is, or holds, one vector per image.

    The vector is the output itself ``(B, D)``, ``.image_embeds``, ``.pooler_output``, the class token of tokens
    ``(B, N, D)``, or, where there's no class token, their mean. Explained by :class:`hookmap.Likeness` and
    :class:`hookmap.Similarity`.

    Args:
        model: whose vectors they are.
        preprocessing: of its images, if known.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing | None = None) -> None:
        super().__init__(model)
        if preprocessing is not None:
            self.preprocessing = preprocessing
        self.note: str | None = None
        self.num_prefix_tokens = getattr(model, "num_prefix_tokens", None)

    def around(self, layer: str) -> Sequence[str]:
        """Where a class token reads the places block by block: what it reads, in the later half of the blocks.

        What it read early, the last block's gradient doesn't show. At least four blocks.
        """
        reads = _before_attention(self)
        return reads[-max(4, (len(reads) + 1) // 2) :] if layer in reads else [layer]

    def embed_images(self, x: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of inputs ``(B, C, H, W)``."""
        return vector_of(self.plain(x), self.plain)

    def forward(self, x: Tensor) -> Embeddings:
        """Embeddings of a batch ``(B, C, H, W)``."""
        return Embeddings(self.embed_images(x))


def _before_attention(model: nn.Module) -> list[str]:
    """The norms before the attention of each of a transformer's blocks."""
    before = []
    for name, block in model.named_modules():
        parts = dict(block.named_children())
        norms = [part for part, module in parts.items() if "norm" in type(module).__name__.casefold()]
        if norms and any(re.search("attn|attention", part) for part in parts):
            before.append(f"{name}.{norms[0]}")
    return before


def vector_of(output: Any, model: nn.Module) -> Tensor:
    """The vectors ``(B, D)`` in what a model or one of its towers gives.

    Raises:
        ModelError: if there's none.
    """
    for name in ("image_embeds", "text_embeds", "pooler_output"):
        if isinstance(values := getattr(output, name, None), Tensor):
            return values.flatten(1)  # convolutional networks pool to (B, D, 1, 1)
    values = getattr(output, "last_hidden_state", output)
    if isinstance(values, Tensor) and values.ndim == 2:
        return values
    if isinstance(values, Tensor) and values.ndim == 3:
        has_token = any(name.rpartition(".")[2] in _CLASS_TOKENS for name, _ in model.named_parameters())
        return values[:, 0] if has_token else values.mean(1)
    got = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else f"a {type(output).__name__}"
    raise ModelError(
        f"{type(model).__name__} gives {got}, and no vector per image; give hm.Embeddings in an adapter of yours"
    )
