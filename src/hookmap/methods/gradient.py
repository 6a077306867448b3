"""Methods that weight a layer's activation by the gradient of the score."""

from __future__ import annotations

from torch import Tensor


def gradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM: feature maps weighted by their mean gradient.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \alpha_k A_k\Big), \qquad
              \alpha_k = \frac{1}{Z} \sum_{i} \frac{\partial y}{\partial A_{k,i}}

    Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*,
    ICCV 2017, eq. 1 and 2. Returned is the sum before the ReLU: its negative part says what speaks against
    the target, and the ReLU is one ``.clamp(min=0)`` away.

    Args:
        activation: ``(B, C, *grid)``, any number of spatial axes.
        gradient: of the score with respect to the activation, same shape.

    Returns:
        The signed map ``(B, *grid)``, in the units of the score.

    >>> import torch
    >>> a = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])      # (1, 2, 1, 2)
    >>> g = torch.tensor([[[[2.0, 0.0]], [[-1.0, -1.0]]]])    # mean per channel: 1 and -1
    >>> gradcam(a, g)
    tensor([[[-2.,  2.]]])
    """
    weights = gradient.flatten(2).mean(2)
    return (weights.unsqueeze(1) @ activation.flatten(2)).reshape(-1, *activation.shape[2:])
