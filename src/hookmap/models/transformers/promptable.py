"""SAM and its like of transformers: they segment whatever points and boxes point at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from hookmap.adapters.promptable import Promptable
from hookmap.hooks.preserve import preserved
from hookmap.models.transformers.adapters import TransformersAdapter, matching


class PromptSegmenter(TransformersAdapter):
    """SAM (Kirillov et al., *Segment Anything*, ICCV 2023, arXiv:2304.02643): one grid of features."""

    @property
    def levels(self) -> Sequence[str]:
        """The norm in the middle of the neck, through which all passes that the decoder reads.

        On a small SAM that was trained to give the square under a point, and 12 pictures of two squares, HiResCAM put
        7.9 times the energy of an even map into that square and 0.5 into the other there; 5.0 and 3.7 where the neck
        ends, whose last norm lets any other thing light up; 4.3 and 0.3 at the last block, where tokens of large norms
        stand out. Occlusion of features, which asks the model, had 8.6 and 0.0.
        """
        return ["vision_encoder.neck.layer_norm1"]

    def forward(self, x: Tensor) -> Promptable:
        """The features of a batch ``(B, C, H, W)``; the decoder runs for each prompt."""
        return Promptable(self.encoded(x), self.decode)

    def encoded(self, x: Tensor) -> tuple[Tensor, ...]:
        """All that the decoder reads."""
        return (self.plain.vision_encoder(x).last_hidden_state,)

    def decode(
        self, features: tuple[Tensor, ...], points: Tensor, labels: Tensor, box: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Masks' logits ``(K, M, h, w)`` and predicted IoU ``(K, M)``, as the library gives them for one prompt."""
        count, kind = len(features[0]), self.plain.prompt_encoder.not_a_point_embed.weight
        prompt: dict[str, Tensor] = {}
        if len(points):
            prompt["input_points"] = points.to(kind).expand(count, 1, -1, -1)
            prompt["input_labels"] = labels.to(kind.device).expand(count, 1, -1)
        if box is not None:
            prompt["input_boxes"] = box.to(kind).expand(count, 1, -1)
        with preserved(self.plain):
            output = self.plain(**self.embeddings(tuple(values.to(kind) for values in features)), **prompt)
        return output.pred_masks[:, 0], output.iou_scores[:, 0]

    def embeddings(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Features by the names of the model's arguments."""
        return {"image_embeddings": features[0]}


class HighQualitySegmenter(PromptSegmenter):
    """SAM-HQ (Ke et al., *Segment Anything in High Quality*, NeurIPS 2023, arXiv:2306.01567).

    Beside SAM's features the decoder reads those of the first block that attends everywhere.
    """

    def encoded(self, x: Tensor) -> tuple[Tensor, ...]:
        """All that the decoder reads."""
        output = self.plain.vision_encoder(x)
        return (output.last_hidden_state, *output.intermediate_embeddings)

    def embeddings(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Features by the names of the model's arguments."""
        return {"image_embeddings": features[0], "intermediate_embeddings": list(features[1:])}


class PyramidPromptSegmenter(PromptSegmenter):
    """SAM 2 (Ravi et al., arXiv:2408.00714) and EdgeTAM: features on grids of three sizes."""

    @property
    def levels(self) -> Sequence[str]:
        """Where the encoder's stages enter the pyramid: each passes what it gives once, so that their maps add up."""
        return matching(self, r"vision_encoder\.neck\.convs\.\d+")

    def encoded(self, x: Tensor) -> tuple[Tensor, ...]:
        """All that the decoder reads, the finest grid first, as the library's own forward prepares it."""
        model = self.plain
        sequences = list(model.get_image_features(x, return_dict=True).fpn_hidden_states)
        sequences[-1] = sequences[-1] + model.no_memory_embedding
        sizes = model.backbone_feature_sizes
        return tuple(
            sequence.permute(1, 2, 0).reshape(len(x), -1, *size)
            for sequence, size in zip(sequences, sizes, strict=True)
        )

    def embeddings(self, features: tuple[Tensor, ...]) -> dict[str, Any]:
        """Features by the names of the model's arguments."""
        return {"image_embeddings": list(features)}
