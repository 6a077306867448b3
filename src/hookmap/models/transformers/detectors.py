"""Detectors of transformers: DETR and its descendants, YOLOS, and those that are asked in words."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hookmap.adapters.outputs import Detections, Kept
from hookmap.errors import ModelError
from hookmap.models.transformers.adapters import TransformersAdapter, matching


class Detector(TransformersAdapter):
    """What all of them share.

    Args:
        model: the detector.
        least: smallest probability of a detection.
    """

    def __init__(self, model: nn.Module, *, least: float) -> None:
        super().__init__(model)
        self.least = least

    @property
    def levels(self) -> Sequence[str]:
        """What the queries look at: the fused pyramid, its projected levels, or the end of the encoder.

        Where several levels are flattened into one sequence, no later layer holds one grid. Of plain transformers it is
        where the last attention begins: what follows no longer moves between places.
        """
        fused = matching(self, r"(model\.)?encoder\.fpn_blocks\.\d+")[-1:]
        fused += matching(self, r"(model\.)?encoder\.pan_blocks\.\d+")
        projected = matching(self, r"model\.input_proj(_vision)?\.\d+|(model\.)+backbone\.projector\.scale_layers\.\d+")
        projected = projected or matching(self, r"(model\.)+backbone\.projector")
        blocks = matching(self, r"(vit|owlvit\.vision_model|owlv2\.vision_model)\..*\.(layernorm_before|layer_norm1)")
        return fused or projected or blocks[-1:] or matching(self, r"(\w+\.)?model\.encoder")

    def _found(
        self, output: Any, scores: Tensor, probabilities: Tensor, kept: Sequence[Sequence[Kept]], x: Tensor
    ) -> Detections:
        # Where queries are chosen from the image, by what the encoder proposes, a row is another candidate elsewhere.
        proposed = ("enc_outputs_class", "enc_outputs_mask_logits")
        fixed = all(getattr(output, name, None) is None for name in proposed)
        boxes = in_pixels(output.pred_boxes, x)
        masks = masks_of(kept, getattr(output, "pred_masks", None))
        return Detections(scores, boxes, probabilities, kept, least=self.least, fixed=fixed, masks=masks)


class QueryDetector(Detector):
    """DETR and its descendants, YOLOS: a candidate is what one query found.

    Models with one output more than classes have learnt that as "no object", and a query has the class of the largest
    softmax; of the others a query may have several classes, by sigmoid. So says each one's own post-processing.

    Args:
        model: the detector.
        least: smallest probability of a detection.
        most: detections per image; by default as many as queries.
    """

    def __init__(self, model: nn.Module, *, least: float = 0.5, most: int | None = None) -> None:
        super().__init__(model, least=least)
        self.most = most

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``."""
        output = self.plain(pixel_values=x)
        scores = output.logits
        if scores.shape[-1] == self.plain.config.num_labels + 1:
            probabilities = scores.softmax(-1)[..., :-1]
            kept = best_per_query(probabilities, self.least)
            scores = scores[..., :-1]
        else:
            probabilities = scores.sigmoid()
            kept = best_of_all(probabilities, self.least, self.most or scores.shape[1])
        return self._found(output, scores, probabilities, kept, x)


Asked = TypeVar("Asked", bound="AskedDetector")


class AskedDetector(Detector):
    """Detectors that look for what texts name: the labels of the Lens, word for word.

    Args:
        model: the detector.
        tokenizer: of its texts, or a processor that holds it; by default what lies beside the model's weights.
        labels: what is looked for.
        least: smallest probability of a detection; by default the library's.
    """

    usual_least: float

    def __init__(
        self, model: nn.Module, tokenizer: Any = None, labels: Sequence[str] = (), *, least: float | None = None
    ) -> None:
        super().__init__(model, least=self.usual_least if least is None else least)
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        self.labels: list[str] = list(labels)

    def with_labels(self: Asked, labels: Sequence[str]) -> Asked:
        """The same, looking for these."""
        named = copy.copy(self)
        named.labels = list(labels)
        return named

    def _tokens(self, texts: list[str], **how: Any) -> dict[str, Tensor]:
        if not self.labels:
            raise ModelError(
                f"{type(self.plain).__name__} looks for what it is asked for; pass labels=['a cat', 'a remote'] to Lens"
            )
        if self.tokenizer is None:
            from transformers import AutoTokenizer

            try:
                self.tokenizer = AutoTokenizer.from_pretrained(self.plain.name_or_path, local_files_only=True)
            except (OSError, ValueError, KeyError, ImportError, AttributeError):
                adapter = f"hookmap.models.transformers.{type(self).__name__}"
                raise ModelError(
                    f"the tokenizer of this {type(self.plain).__name__} isn't beside its weights, so labels can't be "
                    f"read; pass {adapter}(model, AutoTokenizer.from_pretrained(...)) to Lens"
                ) from None
        tokens = self.tokenizer(texts, return_tensors="pt", **how)
        words = ("input_ids", "attention_mask", "token_type_ids")
        return {word: tokens[word].to(self.plain.device) for word in words if word in tokens}


class TextDetector(AskedDetector):
    """OWL-ViT and OWLv2: a candidate is what one patch found; it has the class of the text that fits best."""

    usual_least = 0.1

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``."""
        length = self.plain.config.text_config.max_position_embeddings
        tokens = self._tokens(self.labels, padding="max_length", truncation=True, max_length=length)
        texts = {word: tokens[word].repeat(len(x), 1) for word in ("input_ids", "attention_mask")}
        output = self.plain(pixel_values=x, **texts)
        probabilities = output.logits.sigmoid()
        kept = best_per_query(probabilities, self.least)
        return self._found(output, output.logits, probabilities, kept, x)


class PhraseDetector(AskedDetector):
    """Grounding DINO: all texts are one, and a query fits a text as well as the best of its tokens."""

    usual_least = 0.25

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``."""
        # As the library's processor writes them.
        words = [label.replace(".", " ").strip().lower() for label in self.labels]
        tokens = self._tokens([". ".join(words) + "."], truncation=True, max_length=self.plain.config.max_text_len)
        output = self.plain(pixel_values=x, **{word: ids.expand(len(x), -1) for word, ids in tokens.items()})
        columns = self._columns(tokens["input_ids"][0], len(words))
        scores = torch.stack([output.logits[..., some].amax(-1) for some in columns], -1)
        probabilities = scores.sigmoid()
        kept = best_per_query(probabilities, self.least)
        return self._found(output, scores, probabilities, kept, x)

    def _columns(self, ids: Tensor, count: int) -> list[list[int]]:
        """The places of each text's tokens: what stands between the full stops."""
        special = set(self.tokenizer.all_special_ids)
        stop = self.tokenizer.convert_tokens_to_ids(".")
        columns: list[list[int]] = [[]]
        for place, token in enumerate(ids.tolist()):
            if token == stop:
                columns.append([])
            elif token not in special:
                columns[-1].append(place)
        if len(columns) <= count or not all(columns[:count]):
            raise ModelError(f"{count} labels are more than the {len(ids)} tokens that this detector reads; pass fewer")
        return columns[:count]


class OpenDetector(AskedDetector):
    """OmDet-Turbo: a query is compared with every text, and may have the class of several."""

    usual_least = 0.3

    def forward(self, x: Tensor) -> Detections:
        """Candidates and detections of a batch ``(B, 3, H, W)``."""
        # As the library's processor writes and fills them.
        how = {"padding": "max_length", "truncation": True, "max_length": 77}
        classes, task = self._tokens(self.labels, **how), self._tokens([f"Detect {', '.join(self.labels)}."], **how)
        words = ("input_ids", "attention_mask")
        # The model keeps what it has read, and anchors: neither leaves anything here nor takes what was made without
        # gradients.
        alone = copy.copy(self.plain)
        alone.decoder.generate_anchors.cache_clear()
        for cache in ("language_cache_class", "language_cache_prompt"):
            setattr(alone, cache, type(getattr(alone, cache))(len(self.labels)))
        alone.get_cached_class_embeddings(*(classes[word] for word in words))
        alone.get_cached_task_embeddings(*(task[word] for word in words))
        output = alone(
            pixel_values=x,
            classes_structure=torch.full((len(x),), len(self.labels), device=x.device),
            **{f"classes_{word}": classes[word].repeat(len(x), 1) for word in words},
            **{f"tasks_{word}": task[word].repeat(len(x), 1) for word in words},
        )
        scores, boxes = output.decoder_class_logits, in_pixels(output.decoder_coord_logits, x)
        probabilities = scores.sigmoid()
        kept = best_of_all(probabilities, self.least, scores.shape[1])
        kept = [
            without_doubles(some, box, sure)
            for some, box, sure in zip(kept, boxes.detach(), probabilities.detach(), strict=True)
        ]
        return Detections(scores, boxes, probabilities, kept, fixed=False, least=self.least)


def without_doubles(kept: Sequence[Kept], boxes: Tensor, probabilities: Tensor, overlap: float = 0.5) -> list[Kept]:
    """The detections of one image without those that overlap a better one of their class.

    Args:
        kept: of the image.
        boxes: of all candidates, ``(N, 4)``.
        probabilities: ``(N, K)``.
        overlap: largest intersection over union of two detections of one class.
    """
    from torchvision.ops import batched_nms

    rows, labels = torch.tensor(kept, dtype=torch.long, device=boxes.device).reshape(-1, 2).unbind(1)
    return [kept[i] for i in batched_nms(boxes[rows].float(), probabilities[rows, labels].float(), labels, overlap)]


def masks_of(kept: Sequence[Sequence[Kept]], masks: Tensor | None) -> list[Tensor] | None:
    """The masks ``(B, N, h, w)`` of the detections that are kept, image by image, ``(D, h, w)``."""
    if masks is None:
        return None
    return [mine[[one.row for one in some]] for mine, some in zip(masks, kept, strict=True)]


def in_pixels(boxes: Tensor, x: Tensor) -> Tensor:
    """Boxes ``(B, N, 4)`` as centre and size, 0..1, to x1, y1, x2, y2 in pixels of ``x``."""
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half], -1) * boxes.new_tensor([x.shape[-1], x.shape[-2]] * 2)


def best_per_query(probabilities: Tensor, least: float) -> list[list[Kept]]:
    """One class per query ``(B, N, K)``, where it is probable enough; the strongest first."""
    found = []
    for sure, labels in zip(*probabilities.detach().max(-1), strict=True):
        rows = [row for row in sure.argsort(descending=True).tolist() if sure[row] > least]
        found.append([Kept(row, int(labels[row])) for row in rows])
    return found


def best_of_all(probabilities: Tensor, least: float, most: int) -> list[list[Kept]]:
    """The most probable pairs of query and class ``(B, N, K)``, the strongest first."""
    sure, places = probabilities.detach().flatten(1).topk(min(most, probabilities[0].numel()))
    count = probabilities.shape[2]
    return [
        [Kept(place // count, place % count) for place in mine[enough > least].tolist()]
        for enough, mine in zip(sure, places, strict=True)
    ]
