"""Models that put pictures and texts into one space, and image towers alone: transformers and open_clip."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hookmap.adapters.embedding import Embedder, vector_of
from hookmap.adapters.outputs import Embeddings
from hookmap.errors import ModelError
from hookmap.images.preprocessing import Preprocessing
from hookmap.models.loaded import Loaded
from hookmap.targets.likeness import reader_of

_AT_ONCE = 64
_OPENAI = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
}
_BPE = 49408  # the size of CLIP's own vocabulary, which open_clip ships


class ImageText(Embedder):
    r"""A model that puts pictures and texts into one space; only the layers of its image tower are looked at.

    Where classes have names, an image's score for each is that of zero-shot classification (Radford et al., *Learning
    Transferable Visual Models From Natural Language Supervision*, ICML 2021, arXiv:2103.00020):

    .. math:: y_k = e^s \cos(v, t_k) + b

    with the embedding :math:`v` of the image and :math:`t_k` of the name, and the model's ``logit_scale`` :math:`s` and
    ``logit_bias`` :math:`b`, 0 where it has none. Probabilities are shares of all names, by softmax; a model with a
    bias was trained to say yes or no to each text by itself, by sigmoid (Zhai et al., *Sigmoid Loss for Language Image
    Pre-Training*, ICCV 2023, arXiv:2303.15343).

    :meth:`of` makes one for models of transformers and open_clip. Your own needs two functions::

        class Mine(hm.ImageText):
            def embed_images(self, x):       # (B, C, H, W)
                return self.plain.encode_image(x)

            def embed_texts(self, texts):    # a list
                return self.plain.encode_text(my_tokenizer(texts))

        lens = hm.Lens(Mine(model, preprocessing=...), labels=["a cat", "a dog"])

    Args:
        model: with both towers.
        tokenizer: from texts to the model's tokens; a processor that holds one brings its preprocessing too.
        preprocessing: of images, if known.
    """

    text_parts: Sequence[str] = ("text",)
    """How the names of the model's parts begin that have nothing to do with images."""

    def __init__(self, model: nn.Module, tokenizer: Any = None, preprocessing: Preprocessing | None = None) -> None:
        super().__init__(model, preprocessing)
        self.__dict__["_modules"] = {
            name: part for name, part in model._modules.items() if not name.startswith(tuple(self.text_parts))
        }
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        self._prompts: tuple[tuple[tuple[int, int], ...], Tensor] | None = None

    @staticmethod
    def of(model: nn.Module, tokenizer: Any = None) -> ImageText:
        """The adapter for a model of transformers (CLIP, SigLIP, ...) or open_clip.

        Args:
            model: with both towers.
            tokenizer: or processor; by default what lies beside the model's weights, or comes with open_clip.

        Raises:
            ModelError: for other models.
        """
        kind = _kind(model)
        if kind is None:
            raise ModelError(
                f"{type(model).__name__} is no image-text model of transformers or open_clip; derive your own adapter "
                "from hm.ImageText"
            )
        return kind(model, tokenizer)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(T, D)`` of texts."""
        raise NotImplementedError

    def with_labels(self, labels: Sequence[str]) -> ImageText:
        """The same for classes of these names."""
        named = copy.copy(self)
        named.labels, named._prompts = labels, None
        return named

    def forward(self, x: Tensor) -> Embeddings:
        """Embeddings of a batch ``(B, C, H, W)``, and zero-shot scores ``(B, K)`` where classes have names."""
        vectors = self.embed_images(x)
        scores = self._scores(vectors, self.labels) if self.labels else None
        return Embeddings(vectors, scores, independent=getattr(self.plain, "logit_bias", None) is not None)

    def _scores(self, vectors: Tensor, labels: Sequence[str]) -> Tensor:
        scale, bias = (getattr(self.plain, name, None) for name in ("logit_scale", "logit_bias"))
        # As a decorator it would load the compiler when hookmap is imported.
        compiling = torch.compiler.is_compiling()
        names = (torch.compiler.disable(self._names) if compiling else self._names)(labels)  # type: ignore[no-untyped-call]
        cosines = F.normalize(vectors, dim=1) @ F.normalize(names.to(vectors), dim=1).T
        scores = cosines if scale is None else cosines * scale.detach().exp()
        return scores if bias is None else scores + bias.detach()

    def _names(self, labels: Sequence[str]) -> Tensor:
        """Embeddings of the classes' names, ``(K, D)``: read again when the weights have changed."""
        versions = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.plain.parameters())
        if self._prompts is None or self._prompts[0] != versions:
            read = reader_of(self, "")
            parts = [labels[i : i + _AT_ONCE] for i in range(0, len(labels), _AT_ONCE)]
            self._prompts = versions, torch.cat([read(part) for part in parts])
        return self._prompts[1]


class HuggingFace(ImageText):
    """CLIP, SigLIP and their like of transformers.

    Args:
        model: with both towers.
        tokenizer: or processor; by default what lies beside the weights.
        download: look for what lies beside the weights on the hub, too.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None, *, download: bool = False) -> None:
        preprocessing, note = _usual(model, getattr(tokenizer, "image_processor", None), download=download)
        super().__init__(model, tokenizer, preprocessing)
        self.note = note
        self.download = download

    def embed_images(self, x: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of inputs ``(B, C, H, W)``."""
        return vector_of(self.plain.get_image_features(pixel_values=x), self.plain)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(T, D)`` of texts.

        Raises:
            ModelError: if there's no tokenizer.
        """
        self.tokenizer = self.tokenizer or _beside(self.plain, "AutoTokenizer", download=self.download)
        if self.tokenizer is None:
            raise _no_tokenizer(self.plain, "AutoTokenizer.from_pretrained(...)")
        config = self.plain.config
        tokens = self.tokenizer(
            list(texts),
            # SigLIP was trained on texts of one length.
            padding="max_length" if config.model_type.startswith("siglip") else True,
            max_length=config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        given = {word: tokens[word].to(self.plain.device) for word in ("input_ids", "attention_mask") if word in tokens}
        return vector_of(self.plain.get_text_features(**given), self.plain)


class NaFlex(HuggingFace):
    """SigLIP 2 of transformers that takes patches, of images of any proportions."""

    def embed_images(self, x: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of inputs ``(B, C, H, W)``; sides are multiples of the patch's."""
        side = self.plain.config.vision_config.patch_size
        rows, columns = x.shape[2] // side, x.shape[3] // side
        # As the library's processor does it: the channels of a pixel stay together.
        patches = x.reshape(*x.shape[:2], rows, side, columns, side).permute(0, 2, 4, 3, 5, 1)
        return vector_of(
            self.plain.get_image_features(
                pixel_values=patches.flatten(3).flatten(1, 2),
                pixel_attention_mask=x.new_ones(len(x), rows * columns, dtype=torch.int32),
                spatial_shapes=torch.tensor([[rows, columns]] * len(x), device=x.device),
            ),
            self.plain,
        )


class OpenClip(ImageText):
    """Models of open_clip."""

    text_parts: Sequence[str] = ("text", "transformer", "token_embedding", "ln_final")

    def __init__(self, model: nn.Module, tokenizer: Any = None) -> None:
        super().__init__(model, tokenizer, _of_open_clip(model.visual))

    def embed_images(self, x: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of inputs ``(B, C, H, W)``."""
        vectors: Tensor = self.plain.encode_image(x)
        return vectors

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(T, D)`` of texts.

        Raises:
            ModelError: if there's no tokenizer, and the model's vocabulary isn't the one that open_clip ships.
        """
        if self.tokenizer is None:
            text = getattr(self.plain, "text", self.plain)
            if getattr(text, "vocab_size", None) != _BPE:
                raise _no_tokenizer(self.plain, "open_clip.get_tokenizer(name)")
            from open_clip import SimpleTokenizer

            self.tokenizer = SimpleTokenizer(context_length=text.context_length)
        tokens = self.tokenizer(list(texts)).to(self.plain.logit_scale.device)
        vectors: Tensor = self.plain.encode_text(tokens)
        return vectors


def describe(model: nn.Module, *, download: bool = False) -> Loaded | None:
    """What is known of a model that gives embeddings; None for others.

    Args:
        model: that the user built, or an adapter.
        download: look for what lies beside a transformers model's weights on the hub, too.
    """
    adapter: Embedder | None = model if isinstance(model, Embedder) else None
    if adapter is None and (kind := _kind(model)) is not None:
        adapter = kind(model, download=download) if issubclass(kind, HuggingFace) else kind(model)
    elif adapter is None and _is_image_tower(model):
        adapter = Embedder(model)
        if _origin(model)[0] == "open_clip":
            adapter.preprocessing = _of_open_clip(model)
        else:
            adapter.preprocessing, adapter.note = _usual(model, None, download=download)
    if adapter is None:
        return None
    plain: nn.Module = adapter.plain
    return Loaded(plain, type(plain).__name__, adapter.preprocessing, adapter.labels, adapter.note, adapter=adapter)


def _origin(model: nn.Module) -> tuple[str, str]:
    """The library and the name of the class that a model is of, or derives from."""
    kinds = ((kind.__module__.partition(".")[0], kind.__name__) for kind in type(model).__mro__)
    return next((one for one in kinds if one[0] in ("open_clip", "transformers")), ("", ""))


def _kind(model: nn.Module) -> type[HuggingFace] | type[OpenClip] | None:
    """The adapter for a model with both towers."""
    library, name = _origin(model)
    if library == "open_clip" and hasattr(model, "encode_text"):
        return OpenClip
    both = all(hasattr(model, part) for part in ("get_image_features", "get_text_features", "logit_scale"))
    if library != "transformers" or not both:
        return None
    return NaFlex if name.startswith("Siglip2") else HuggingFace


def _is_image_tower(model: nn.Module) -> bool:
    library, name = _origin(model)
    if library == "open_clip":
        return hasattr(model, "image_size")
    config = getattr(model, "config", None)
    return (
        library == "transformers"
        and getattr(model, "main_input_name", "") == "pixel_values"
        and name.endswith(("Model", "ModelWithProjection"))
        and not name.startswith("Siglip2")
        and not hasattr(config, "num_queries")  # the body of a detector gives queries
        and not hasattr(config, "text_config")
        and not hasattr(config, "prompt_encoder_config")
    )


def _no_tokenizer(model: nn.Module, usually: str) -> ModelError:
    return ModelError(
        f"the tokenizer of this {type(model).__name__} isn't beside its weights, so texts can't be read; pass "
        f"hm.ImageText.of(model, tokenizer={usually}) to Lens"
    )


def _beside(model: Any, kind: str, *, download: bool) -> Any:
    """The tokenizer or image processor that lies beside a model's weights; None if there is none."""
    import transformers

    place = getattr(model, "name_or_path", "")
    if not place:
        return None
    try:
        return getattr(transformers, kind).from_pretrained(
            place, local_files_only=not download, trust_remote_code=False
        )
    except Exception:  # none there, of a kind that isn't known, or nothing that can be reached
        return None


def _usual(model: Any, processor: Any, *, download: bool) -> tuple[Preprocessing, str | None]:
    """The preprocessing of an image processor, of the one beside the weights, or of the model's kind, and said so."""
    from hookmap.models.transformers import processing

    processor = processor or _beside(model, "AutoImageProcessor", download=download)
    config = getattr(model.config, "vision_config", model.config)
    siglip = "siglip" in config.model_type
    if hasattr(processor, "max_num_patches"):
        side = math.isqrt(processor.max_num_patches) * processor.patch_size
        return Preprocessing((side, side), (side, side), (0.5,) * 3, (0.5,) * 3), None
    if processor is not None and (read := processing.read(processor)) is not None:
        return read, None
    patches = getattr(config, "num_patches", None)  # SigLIP 2 knows how many it takes, not a size
    given = math.isqrt(patches) * config.patch_size if siglip and patches else getattr(config, "image_size", 224)
    height, width = (given, given) if isinstance(given, int) else tuple(given)
    note = (
        f"no image processor lies beside the weights of this {type(model).__name__}: the preprocessing of its kind "
        "is assumed; pass preprocessing= to be sure"
    )
    if siglip:
        return Preprocessing((height, width), (height, width), (0.5,) * 3, (0.5,) * 3, "bicubic"), note
    if "clip" in config.model_type:
        return Preprocessing((height, width), min(height, width), **_OPENAI), note  # type: ignore[arg-type]
    return Preprocessing((height, width), math.floor(min(height, width) / 0.875), interpolation="bicubic"), note


def _of_open_clip(tower: Any) -> Preprocessing:
    """From the configuration that open_clip's factory writes onto an image tower, else CLIP's own."""
    config: dict[str, Any] = getattr(tower, "preprocess_cfg", None) or {}
    given = config.get("size") or tower.image_size
    height, width = (given, given) if isinstance(given, int) else tuple(given)
    ways: dict[str, Any] = {"shortest": min(height, width), "squash": (height, width), "longest": "letterbox"}
    return Preprocessing(
        size=(height, width),
        resize=ways[config.get("resize_mode", "shortest")],
        mean=tuple(config.get("mean", _OPENAI["mean"])),
        std=tuple(config.get("std", _OPENAI["std"])),
        interpolation=config.get("interpolation", "bicubic"),
        fill=config.get("fill_color", 0),
    )
