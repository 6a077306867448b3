"""Methods that read attention: who looked where, and how much of that the score felt.

Attention is no explanation by itself: it says where a token looked, not what it did with what it saw, and it knows no
class. Networks trained without registers park sums on a few background tokens ("artefacts": Darcet et al., *Vision
Transformers Need Registers*, ICLR 2024, arXiv:2309.16588), which then shine in every map of attention alone; clean
attention of a network with registers isn't more faithful for being clean. The methods here that know a target weigh
attention by its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hookmap.errors import LayerError

EVERY = slice(None)


@dataclass(frozen=True)
class Attended:
    """One attention of the model, for B images (or for T targets of B images, one after the other, as one axis).

    Attributes:
        weights: from a slice of queries to how much they look at the keys, ``(G, H, n, M)``; G is B, or B times the
            number of windows.
        on_grid: from one value for each key, ``(G, M)``, to the places of the picture, ``(B, *grid)``; keys without a
            place (class tokens, registers) are left out.
        queries: N.
        keys: M.
        class_token: the query that the head reads, where there is one.
        windowed: whether G isn't B.
        layer: in which it ran.
        gradient: from a slice of queries to the gradient of the score with respect to their weights, ``(G, H, n, M)``.
    """

    weights: Callable[[slice], Tensor]
    on_grid: Callable[[Tensor], Tensor]
    queries: int
    keys: int
    class_token: int | None = None
    windowed: bool = False
    layer: str = ""
    gradient: Callable[[slice], Tensor] = lambda _: torch.empty(0)

    @property
    def read(self) -> slice:
        """The queries that stand for the whole: the class token, or else all."""
        return EVERY if self.class_token is None else slice(self.class_token, self.class_token + 1)


def attention(attention: Attended, at_head: int | None = None, at_token: int | None = None) -> Tensor:
    r"""Where a layer looks: attention of the class token (without one: of all tokens on average).

    .. math:: M_j = \frac{1}{H} \sum_h A^h_{cls, j}

    It knows no target. It lies in the layer, or in the next one after it.

    Args:
        attention: of the layer.
        at_head: one of the heads instead of their mean.
        at_token: another query than the class token, counted as the model does: with a class token the patch in row r
            and column c of a grid of w columns is ``1 + r * w + c``.

    Raises:
        LayerError: if there is no such head or token.
    """
    counts = {"head": (at_head, attention.weights(slice(0, 1)).shape[1]), "token": (at_token, attention.queries)}
    for name, (number, count) in counts.items():
        if number is not None and not 0 <= number < count:
            raise LayerError(
                f"{name} {number} was asked for; the attention of {attention.layer!r} has 0 to {count - 1}"
            )
    weights = attention.weights(attention.read if at_token is None else slice(at_token, at_token + 1))
    looked = weights.mean(1) if at_head is None else weights[:, at_head]
    return attention.on_grid(looked.mean(1))


def gradient_attention(attention_with_gradient: Attended) -> Tensor:
    r"""Attention of one layer, each head weighted by what the score felt of it.

    .. math:: M_j = \frac{1}{H} \sum_h \left( \nabla A^h \odot A^h \right)^+_{cls, j}

    One layer of Chefer et al., *Generic Attention-model Explainability*, ICCV 2021, arXiv:2103.15679, eq. 5; without a
    class token, the mean over all tokens.

    Args:
        attention_with_gradient: of the layer.
    """
    attended = attention_with_gradient
    felt = (attended.weights(attended.read) * attended.gradient(attended.read)).clamp(min=0)
    return attended.on_grid(felt.mean((1, 2)))


def value_path(attention_with_gradient: Attended) -> Tensor:
    r"""What each place gave to the score through the values that one layer's attention read of it.

    .. math:: M_j = \sum_h A^h_{cls, j} \, \frac{\partial y}{\partial A^h_{cls, j}}
                  = \sum_h A^h_{cls, j} \, v^h_j \cdot \frac{\partial y}{\partial o^h_{cls}}

    o is what the attention gave to the class token, so over all keys the map adds up to gradient times o. It is
    :func:`gradient_attention` with its signs, so that heads that speak against the score count, and gradient times
    input with the attention held fixed (Ali et al., *XAI for Transformers*, ICML 2022, arXiv:2202.07304). Without a
    class token, the sum over all tokens.

    Args:
        attention_with_gradient: of the layer.
    """
    attended = attention_with_gradient
    gave = attended.weights(attended.read) * attended.gradient(attended.read)
    return attended.on_grid(gave.sum((1, 2)))


def rollout(
    attentions: Sequence[Attended], heads: Literal["mean", "max", "min"] = "mean", discard: float = 0.0
) -> Tensor:
    r"""Attention followed from layer to layer: which patches reach the class token.

    .. math:: M = e_{cls}^\top \prod_{l=L}^{1} \tfrac12 \left( A_l + I \right)

    Abnar and Zuidema, *Quantifying Attention Flow in Transformers*, ACL 2020, arXiv:2005.00928. The path is followed
    backwards as one row, so no product of N x N matrices is made. Without a class token it starts from all tokens. It
    knows no target.

    Args:
        attentions: of all layers.
        heads: how they become one.
        discard: the share of the smallest weights of each layer that is set to 0, 0..1, the class token's own excepted.

    Raises:
        LayerError: if tokens can't be followed: they are pooled or windowed on the way.
    """
    chain = followed(attentions, "rollout")
    row = _start(chain[-1])
    for layer in reversed(chain):
        row, weights = row[:, -layer.queries :], layer.weights(EVERY)
        fused = weights.mean(1) if heads == "mean" else weights.amax(1) if heads == "max" else weights.amin(1)
        if discard:
            fused = _without_smallest(fused, discard, layer.class_token)
        if layer.queries == layer.keys:
            fused = fused + torch.eye(layer.keys, dtype=fused.dtype, device=fused.device)
            fused = fused / fused.sum(-1, keepdim=True)
        row = torch.einsum("bn,bnm->bm", row, fused)
    return chain[0].on_grid(row)


def chefer(attentions_with_gradients: Sequence[Attended]) -> Tensor:
    r"""Attention weighted by its gradient, followed from layer to layer: what each patch gave to the score.

    .. math:: R \leftarrow R + \bar A R, \qquad \bar A = \frac{1}{H} \sum_h \left( \nabla A^h \odot A^h \right)^+

    from R = I on, layer by layer; shown is the row of the tokens that the score reads: Chefer, Gur and Wolf, *Generic
    Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers*, ICCV 2021,
    arXiv:2103.15679, eqs. 5 and 6. With a class token that is its row. Where the score reads several tokens (their
    mean, say), each row counts by its share of what the last layer gave to the score. Followed backwards as one row.
    Where the class token joins the patches late and looks alone (CaiT), the rows of the patches are zero in
    :math:`\bar A`, because nothing is added to them.

    Where queries of a decoder read the tokens of an encoder, by eqs. 7 to 10 on both: with :math:`R_{qq}`,
    :math:`R_{ii}` and :math:`\hat R = (R - I) / \text{row sums} + I`,

    .. math:: R_{qi} \leftarrow R_{qi} + \hat R_{qq}^\top \bar A_{qi} \hat R_{ii}, \qquad
              R_{qi} \leftarrow R_{qi} + \bar A_{qq} R_{qi}

    Args:
        attentions_with_gradients: of all layers.

    Raises:
        LayerError: if tokens can't be followed: they are pooled or windowed on the way.
    """
    layers = attentions_with_gradients
    squares = {layer.keys for layer in layers if layer.queries == layer.keys}
    if layers and len(squares) > 1 and all(squares >= {each.queries, each.keys} for each in layers):
        return _encoder_and_decoder(layers)
    chain = followed(layers, "chefer")
    row = _shares(chain[-1])
    for layer in reversed(chain):
        row = row[:, -layer.queries :]
        through = torch.einsum("bn,bnm->bm", row, _felt(layer))
        row = row + through if layer.queries == layer.keys else through
    return chain[0].on_grid(row)


def _encoder_and_decoder(layers: Sequence[Attended]) -> Tensor:
    """Relevance between tokens of two kinds, told apart by how many there are."""
    relevance: dict[tuple[int, int], Tensor] = {}

    def of_themselves(count: int, like: Tensor) -> Tensor:
        start = torch.eye(count, dtype=like.dtype, device=like.device).expand(len(like), -1, -1)
        return relevance.setdefault((count, count), start)

    for layer in layers:
        if layer.windowed:
            raise LayerError(f"chefer follows tokens from layer to layer, and {layer.layer!r} looks in windows")
        felt = _felt(layer)
        rows, columns = of_themselves(layer.queries, felt), of_themselves(layer.keys, felt)
        pair = layer.queries, layer.keys
        if layer.queries == layer.keys:
            for (here, other), known in [*relevance.items()]:
                if here == layer.queries:
                    relevance[here, other] = known + felt @ known
        else:
            added = _apart(rows).mT @ felt @ _apart(columns)
            relevance[pair] = relevance[pair] + added if pair in relevance else added
    last = layers[-1]
    across = [layer for layer in layers if layer.queries != layer.keys and layer.queries == last.queries]
    if not across:
        raise LayerError(
            f"chefer follows tokens from layer to layer, and no attention leads from the {layers[0].keys} tokens of "
            f"{layers[0].layer!r} to the {last.queries} of {last.layer!r}; take gradientattention, which is of one "
            "layer, or hirescam"
        )
    crossing = across[-1]
    row = torch.einsum("bn,bnm->bm", _shares(last), relevance[crossing.queries, crossing.keys])
    return crossing.on_grid(row)


def _felt(layer: Attended) -> Tensor:
    """What the score felt of each weight, heads averaged, ``(B, N, M)``: eq. 5."""
    return (layer.weights(EVERY) * layer.gradient(EVERY)).clamp(min=0).mean(1)


def _shares(last: Attended) -> Tensor:
    """How much of what an attention gave to the score came by each query, ``(B, N)``; the sum is one, or zero."""
    gave = (last.weights(EVERY) * last.gradient(EVERY)).sum((1, 3)).abs()
    total = gave.sum(-1, keepdim=True)
    return gave / torch.where(total > 0, total, 1)


def _apart(relevance: Tensor) -> Tensor:
    """Eqs. 8 and 9: what came on the way normalised to rows of one, apart from what was there from the start."""
    itself = torch.eye(relevance.shape[-1], dtype=relevance.dtype, device=relevance.device)
    gained = relevance - itself
    total = gained.sum(-1, keepdim=True)
    return gained / torch.where(total > 0, total, 1) + itself


def followed(attentions: Sequence[Attended], method: str) -> list[Attended]:
    """The attentions through which the tokens of the last one can be followed back to patches, first to last.

    Raises:
        LayerError: naming what is in the way.
    """
    together = {layer.keys for layer in attentions if layer.queries == layer.keys}
    chain: list[Attended] = []
    for layer in reversed(attentions):
        if layer.queries == 1 and layer.keys not in together and len(attentions) > 1:
            layer = _class_attention(layer)
        joins = chain and chain[-1].keys not in together and layer.queries == chain[-1].keys - 1
        fits = not chain or joins or layer.queries == chain[-1].keys
        if layer.windowed or not fits:
            why = (
                "looks in windows"
                if layer.windowed
                else f"gives {layer.queries} tokens where {chain[-1].keys} are read"
            )
            raise LayerError(
                f"{method} follows tokens from layer to layer, and the attention of {layer.layer!r} {why}; take "
                "gradientattention, which is of one layer, or gradcam"
            )
        chain.append(layer)
    check_some(chain, method)
    return chain[::-1]


def _class_attention(layer: Attended) -> Attended:
    """A class token that looks at itself and the patches, as attention of all of them in which it looks alone."""

    def of_all(row: Callable[[slice], Tensor]) -> Callable[[slice], Tensor]:
        return lambda queries: F.pad(row(EVERY), (0, 0, 0, layer.keys - 1))[:, :, queries]

    weights, gradient = of_all(layer.weights), of_all(layer.gradient)
    return replace(layer, weights=weights, gradient=gradient, queries=layer.keys, class_token=0)


def check_some(attentions: Sequence[object], method: str) -> None:
    """Raise a :class:`LayerError` where a method has no attention to read."""
    if not attentions:
        raise LayerError(f"{method} reads attention, and this model has none that can be read; take gradcam")


def _start(last: Attended) -> Tensor:
    """A row over the queries of the last attention: all on the class token, or spread evenly."""
    like = last.weights(slice(0, 1))
    row = like.new_zeros(len(like), last.queries)
    row[:, last.read] = 1 / len(range(*last.read.indices(last.queries)))
    return row


def _without_smallest(weights: Tensor, share: float, class_token: int | None) -> Tensor:
    flat = weights.flatten(1)
    smallest = flat.topk(int(share * flat.shape[1]), largest=False).indices
    kept = flat.scatter(1, smallest, 0.0)
    if class_token is not None:
        kept[:, class_token] = flat[:, class_token]
    return kept.view_as(weights)


def legrad(block_gradients: Sequence[Attended]) -> Tensor:
    r"""How the head's opinion of each block's tokens feels that block's attention.

    .. math:: M = \frac{1}{L} \sum_l \frac{1}{H N} \sum_h \sum_i \left( \nabla_{A^l} s^l \right)^+_{h, i, \cdot}

    where :math:`s^l` is the score of the target if the mean token of block l stood in the place of the last block's.
    Bousselham et al., *LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity*,
    ICCV 2025, arXiv:2404.03214, eqs. 4 to 7.

    Args:
        block_gradients: of all blocks.
    """
    maps = [block.on_grid(block.gradient(EVERY).clamp(min=0).mean((1, 2))) for block in block_gradients]
    return torch.stack(maps).mean(0)
