"""Layer-wise relevance propagation: the score shared out, layer by layer, to where it came from.

Patents EP3271863B1 and US12061966B2 cover relevance propagation in part: commercial users should check whether they
need a licence. hookmap's own is written from the papers.
"""

from __future__ import annotations

from torch import Tensor


def lrp(relevance: Tensor) -> Tensor:
    r"""LRP: the relevance of a layer's feature maps, summed over channels.

    .. math:: L = \sum_k R_k, \qquad \sum R = y - \text{what parameters after the layer gave}

    Gradient times activation with a modified backward pass (Arras et al. 2025, arXiv:2502.15886), on the unmodified
    model: convolutions share out by the gamma rule with .25 and linear layers with .05 (Montavon et al. 2019,
    doi:10.1007/978-3-030-28954-6_10), with the batch norms that follow them; attention passes relevance through its
    values (CP-LRP, Ali et al. 2022, arXiv:2202.07304); norms, gates and softmaxes are held constant. It is closed by an
    account: input, biases, positions and batch norms together have the whole score, or the map says what is missing.

    Patents EP3271863B1 and US12061966B2: commercial users should check.

    Args:
        relevance: ``(B, C, *grid)``.
    """
    return relevance.sum(1)


def attnlrp(attention_relevance: Tensor) -> Tensor:
    """AttnLRP: LRP in which queries and keys of attention take a quarter each of what values otherwise have alone.

    Achtibat et al., *AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers*, ICML 2024,
    arXiv:2402.05602. The softmax keeps a share by definition, which the account tells.

    Args:
        attention_relevance: ``(B, C, *grid)``.
    """
    return attention_relevance.sum(1)


def lrppixels(input_relevance: Tensor) -> Tensor:
    """LRP of the input: as :func:`lrp`, through a first layer that gives all that an output sees the same (LRP-flat).

    So a vision transformer's map is one value per patch.

    Args:
        input_relevance: ``(B, C, *size)``.
    """
    return input_relevance.sum(1)
