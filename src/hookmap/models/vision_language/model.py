"""A model that says something about a picture, and its processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hookmap._devices import out_of_memory
from hookmap._progress import Track, silent
from hookmap.adapters.adapter import Adapter
from hookmap.adapters.wording import Wording
from hookmap.errors import ModelError, first_line
from hookmap.images.geometry import Geometry
from hookmap.images.loading import Picture
from hookmap.images.mosaic import Mosaic, geometries_of, mosaic
from hookmap.models.vision_language.asked import Asked, as_found
from hookmap.models.vision_language.pixels import Packing, unpacked
from hookmap.models.vision_language.tokens import token_layouts

_MARKED = {"paligemma": 1}
"""How an answer's tokens are marked in ``token_type_ids``, where not with 0, by the type of the model."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A picture and a question as a model takes them.

    Attributes:
        text: what the model reads beside the picture, its placeholder among it.
        inputs: what it is called with, but for the pixels.
        pixels: of the picture, in its views, ``(V, C, h, w)``.
        packed: the views as the model takes them.
        mosaic: the same as one input.
    """

    text: str
    inputs: Mapping[str, Any]
    packed: Packing
    mosaic: Mosaic = field(repr=False)


@dataclass(frozen=True, eq=False)
class Generated:
    """What a model says by itself.

    Attributes:
        begun: the ids that it was given, as it took them.
        ids: of its answer.
        logits: at each of them, ``(T, V)``.
    """

    begun: tuple[int, ...]
    ids: tuple[int, ...]
    logits: Tensor


class VisionLanguage(Adapter):
    """A model of transformers that answers questions about a picture, or describes it: LLaVA, Qwen-VL, PaliGemma, ...

    Ask it by :meth:`hookmap.Lens.ask`::

        lens = hm.Lens(hm.VisionLanguage(model, processor))
        answer = lens.ask("street.jpg", "What is the man holding?")

    Args:
        model: that generates text from pixels.
        processor: of pictures and texts, by default the one that lies beside the weights.
        source: the folder or repository of the weights; by default what the model remembers.
        download: look for the processor on the hub, too.
    """

    unasked = (
        "this model answers in words, and it wasn't asked anything; take lens.ask(picture, question), or as a target "
        "hm.Word('umbrella', question='What is the man holding?')"
    )

    checked: bool
    """Whether it was seen that the model says an answer that it is given as one that it makes."""

    def __init__(
        self, model: nn.Module, processor: Any = None, *, source: str | None = None, download: bool = False
    ) -> None:
        super().__init__(model)
        self._processor = processor
        self._source = source or getattr(model, "name_or_path", "")
        self._download = download
        self.checked = False
        self._geometries: dict[tuple[int, int], list[Geometry]] = {}

    @property
    def processor(self) -> Any:
        """Of pictures and texts.

        Raises:
            ModelError: if there's none.
        """
        if self._processor is None:
            import transformers

            try:
                self._processor = transformers.AutoProcessor.from_pretrained(
                    self._source, local_files_only=not self._download, trust_remote_code=False
                )
            except Exception as error:  # none there, of a kind that isn't known, or nothing that can be reached
                raise ModelError(
                    f"the processor of this {type(self.plain).__name__} isn't beside its weights "
                    f"({first_line(error)[:160]}); pass hm.VisionLanguage(model, processor) to Lens"
                ) from None
        return self._processor

    @property
    def tokenizer(self) -> Any:
        """Of texts."""
        return getattr(self.processor, "tokenizer", self.processor)

    def forward(self, x: Tensor) -> Any:
        """Refused: there's no question yet."""
        raise ModelError(self.unasked)

    # ---------------------------------------------------------------- what it is given

    def prompt(self, picture: Picture, question: str) -> Prompt:
        """A picture and a question as the model takes them.

        Raises:
            ModelError: if its processor can't make them, or does with pictures what can't be read.
        """
        text, given = self._worded(picture.pixels, question)
        views, packed = unpacked(given, self.processor)
        size = (picture.height, picture.width)
        if size not in self._geometries:
            self._geometries[size] = geometries_of(self._views(text), size)
        found = self._geometries[size]
        if len(found) != len(views):
            raise ModelError(
                f"the processor gives {len(views)} views of this picture, and {len(found)} of another of its size, so "
                "what they show isn't known"
            )
        plain: Any = self.plain
        device, dtype = plain.device, plain.dtype
        inputs = {
            name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for name, value in given.items()
            if isinstance(value, Tensor) and name not in ("pixel_values", "labels")
        }
        return Prompt(text, inputs, packed, mosaic(views.to(device, dtype), found))

    def _views(self, text: str) -> Any:
        def show(pixels: np.ndarray[Any, Any]) -> Tensor:
            return unpacked(self._processed(pixels, text), self.processor)[0]

        return show

    def _processed(self, pixels: np.ndarray[Any, Any], text: str) -> Mapping[str, Any]:
        from PIL import Image

        image = Image.fromarray(pixels)
        given: Mapping[str, Any] = self.processor(images=image, text=text or None, return_tensors="pt")
        return given

    def _worded(self, pixels: np.ndarray[Any, Any], question: str) -> tuple[str, Mapping[str, Any]]:
        """The whole text of a question, and what the processor makes of it and the picture."""
        errors: list[Exception] = []
        for text in self._ways(question):
            try:
                given = self._processed(pixels, text)
            except Exception as error:  # processors raise whatever they stumble over
                errors.append(error)
                continue
            ids = given.get("input_ids")
            if self.placeholder is None or (ids is not None and self.placeholder in ids):
                return text, given
        reason = f": {first_line(errors[0])[:160]}" if errors else ""
        raise ModelError(
            f"the processor of this {type(self.plain).__name__} makes no input of the picture and the question "
            f"{question!r}{reason}; write the question as the model was trained to read it, with its placeholder "
            f"{self._token!r} for the picture"
        )

    def _ways(self, question: str) -> Sequence[str]:
        """The texts that a question may be put into, the likeliest first."""
        token = self._token
        if token and token in question:
            return [question]
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, *([{"type": "text", "text": question}] if question else [])]
            asked = [{"role": "user", "content": content}]
            return [self.processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)]
        return [question, f"{token}\n{question}"] if token else [question]

    @property
    def _token(self) -> str:
        """How the placeholder of a picture is written."""
        for holder in (self.processor, self.tokenizer):
            for name in ("boi_token", "image_token"):
                if isinstance(token := getattr(holder, name, None), str):
                    return token
        return ""

    @property
    def placeholder(self) -> int | None:
        """The id of the tokens that are kept for the picture's, if any are."""
        config = self.plain.config
        return next((i for n in ("image_token_id", "image_token_index") if (i := getattr(config, n, None))), None)

    # ---------------------------------------------------------------- what it says

    def generated(self, prompt: Prompt, most: int, track: Track = silent) -> Generated:
        """What the model says by itself, always the likeliest."""
        from transformers import StoppingCriteria

        done = track("answering", most)

        class Told(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
                done(1)
                return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

        views = prompt.packed(prompt.mosaic.views)
        how: dict[str, Any] = {"do_sample": False, "num_beams": 1, "suppress_tokens": self._kept_free() or None}
        how |= {"output_logits": True, "return_dict_in_generate": True, "stopping_criteria": [Told()]}
        with as_found(self.plain), torch.no_grad():
            try:
                output = self.plain.generate(pixel_values=views, **prompt.inputs, max_new_tokens=most, **how)
            except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
                if out_of_memory(error):
                    raise
                raise ModelError(
                    f"{type(self.plain).__name__} failed to answer {prompt.text!r}: {first_line(error)[:160]}; write "
                    "the question as the model was trained to read it"
                ) from error
        logits = torch.cat(output.logits)
        sequence = output.sequences[0].tolist()
        begun, ids, ends = sequence[: -len(logits)], sequence[-len(logits) :], self._marks()
        while ids and ids[-1] in ends:
            ids.pop()
        return Generated(tuple(begun), tuple(ids), logits[: len(ids)])

    def _kept_free(self) -> list[int]:
        """The ids of tokens that stand for pictures, clips and sounds, which no answer holds."""
        names = (f"{kind}_token_{what}" for kind in ("image", "video", "audio") for what in ("id", "index"))
        return [i for name in names if isinstance(i := getattr(self.plain.config, name, None), int)]

    def _marks(self) -> set[int]:
        """The ids that end an answer, or fill it up."""
        found: set[int] = set()
        for holder in (self.plain.generation_config, self.tokenizer):
            for name in ("eos_token_id", "pad_token_id"):
                value = getattr(holder, name, None)
                found |= set(value if isinstance(value, list) else [value]) - {None}
        return found

    def ids_of(self, answer: str, prompt: Prompt, pixels: np.ndarray[Any, Any]) -> tuple[int, ...]:
        """The ids of an answer of the user's after a prompt."""
        begun: Tensor | None = prompt.inputs.get("input_ids")
        apart = "" if not prompt.text or prompt.text[-1].isspace() or answer[:1].isspace() else " "
        if begun is not None:
            whole = self._processed(pixels, f"{prompt.text}{apart}{answer}")["input_ids"][0].tolist()
            first = begun[0].tolist()
            if whole[: len(first)] == first and len(whole) > len(first):
                return tuple(whole[len(first) :])
        return tuple(self.tokenizer(answer, add_special_tokens=False)["input_ids"])

    def as_taken(self, prompt: Prompt, begun: Sequence[int]) -> Prompt:
        """The prompt as the model took it when it generated: some give its first and last marks another meaning."""
        text = prompt.inputs.get("input_ids")
        if self._decodes_apart or (text is not None and text[0].tolist() == list(begun)):
            return prompt
        plain: Any = self.plain
        ids = torch.tensor([begun], device=plain.device)
        others = {k: v for k, v in prompt.inputs.items() if text is None or v.shape != text.shape}
        return replace(prompt, inputs={**others, "input_ids": ids, "attention_mask": torch.ones_like(ids)})

    @property
    def _decodes_apart(self) -> bool:
        """Whether one part of the model reads the prompt, and another says the answer."""
        config = self.plain.config
        return bool(config.is_encoder_decoder) or not getattr(config, "use_decoder_only_language_model", True)

    def asked(self, prompt: Prompt, wording: Wording) -> tuple[Asked, list[str]]:
        """The model as it says an answer, and the layers through which all passes that it knows of the picture."""
        inputs = self._continued(prompt, wording.ids)
        asked = Asked(self.plain, inputs, wording, prompt.mosaic, prompt.packed)
        text: Tensor | None = inputs.get("input_ids")
        ids: list[int] = [] if text is None else text[0].tolist()
        places = [place for place, one in enumerate(ids) if one == self.placeholder]
        x = prompt.mosaic.input[None]
        asked.layouts, levels = token_layouts(self.plain, lambda: asked(x), prompt.mosaic, len(ids), places)
        return asked, levels

    def _continued(self, prompt: Prompt, ids: Sequence[int]) -> dict[str, Any]:
        """What the model is called with to say an answer: the text before its last token."""
        inputs, config = dict(prompt.inputs), self.plain.config
        plain: Any = self.plain
        if self._decodes_apart:
            start = plain.generation_config.decoder_start_token_id
            start = config.get_text_config().decoder_start_token_id if start is None else start
            inputs["decoder_input_ids"] = torch.tensor([[start, *ids[:-1]]], device=plain.device)
        else:
            begun = inputs["input_ids"]
            more = torch.tensor([ids[:-1]], device=begun.device, dtype=begun.dtype)
            fills = {"attention_mask": 1, "token_type_ids": _MARKED.get(config.model_type, 0)}
            for name, value in list(inputs.items()):
                if name != "input_ids" and value.shape == begun.shape:
                    added = torch.full_like(more, fills.get(name, 0)).to(value)
                    inputs[name] = torch.cat([value, added], 1)
            inputs["input_ids"] = torch.cat([begun, more], 1)
            inputs["logits_to_keep"] = len(ids)
        inputs["use_cache"] = False
        return inputs
