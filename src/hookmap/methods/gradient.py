"""Methods that weight a layer's feature maps by derivatives of the score.

Every function takes the activation ``(B, C, *grid)`` (any number of spatial axes) and derivatives of the same
shape, and returns the signed map ``(B, *grid)``: before a final ReLU where the paper has one. Those that are
decorated give the weights that their paper defines, ``(B, C)`` or ``(B, C, *grid)``; calling them gives the sum of
the feature maps with these weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hookmap.errors import LayerError
from hookmap.methods.eigen import first_component, most_extreme, oriented
from hookmap.methods.weighting import WeightedSum, full_precision, per_place


@WeightedSum
def gradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM: feature maps weighted by their mean gradient.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \alpha_k A_k\Big), \qquad
              \alpha_k = \frac{1}{Z} \sum_{i} \frac{\partial y}{\partial A_{k,i}}

    Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization*,
    ICCV 2017, eq. 1 and 2. In the units of the score; its negative part says what speaks against the target.

    >>> import torch
    >>> a = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])      # (1, 2, 1, 2)
    >>> g = torch.tensor([[[[2.0, 0.0]], [[-1.0, -1.0]]]])    # mean per channel: 1 and -1
    >>> gradcam(a, g)
    tensor([[[-2.,  2.]]])
    """
    return gradient.flatten(2).mean(2)


@WeightedSum
def cam(activation: Tensor, head: Tensor) -> Tensor:
    r"""CAM, the classic: feature maps weighted by the class's weights in the linear head.

    .. math:: L = \sum_k w_k A_k

    Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016, eq. 2. Defined for networks
    whose layer is followed by global average pooling and one linear layer; it is then Z times Grad-CAM.

    Args:
        activation: ``(B, C, *grid)``, directly before the pooling.
        head: the target class's row of the linear layer, ``(B, C)``.
    """
    return head


@WeightedSum
def gradcampp(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM++: each place's positive gradient, weighted by its share of the evidence.

    .. math:: w_k = \sum_i \alpha_{k,i} \, \mathrm{ReLU}(g_{k,i}), \qquad
              \alpha_{k,i} = \frac{g_{k,i}^2}{2 g_{k,i}^2 + g_{k,i}^3 \sum_j A_{k,j}}
                           = \frac{1}{2 + g_{k,i} \sum_j A_{k,j}} \quad (g_{k,i} \neq 0)

    Chattopadhay et al., *Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional Networks*,
    WACV 2018, eq. 19, for the score :math:`\exp(y)`, whose common factor drops out. The second form is the first one
    reduced: no squares or cubes that underflow, and no epsilon. (Other implementations add 1e-6 to a denominator that
    is often smaller than that, or multiply g^3 and A before the sum over places.) Where the denominator is exactly
    zero it is taken as 1, as the authors' code does; it can come near zero only where channels sum to less than zero.
    """
    share = 2 + gradient * per_place(activation.flatten(2).sum(2), activation)
    share = torch.where(share == 0, torch.ones_like(share), share)
    return (gradient.clamp(min=0) / share).flatten(2).sum(2)


@WeightedSum
def gradcampp_authors(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM++ as its authors' code has it: the shares of a channel's positive places sum to one.

    .. math:: w_k = \frac{\sum_i \alpha_{k,i} \, \mathrm{ReLU}(g_{k,i})}{\sum_{i : g_{k,i} > 0} \alpha_{k,i}}

    with :math:`\alpha` of :func:`gradcampp`. The paper has no such normalisation.
    """
    share = 2 + gradient * per_place(activation.flatten(2).sum(2), activation)
    alpha = (gradient > 0) / torch.where(share == 0, torch.ones_like(share), share)
    total = alpha.flatten(2).sum(2)
    summed = (gradient * alpha).flatten(2).sum(2)
    return torch.where(total == 0, torch.zeros_like(total), summed / torch.where(total == 0, 1, total))


@WeightedSum
def smoothgradcampp(activation: Tensor, moments: Tensor) -> Tensor:
    r"""Smooth Grad-CAM++: Grad-CAM++ with derivatives averaged over noisy copies of the input.

    .. math:: w_k = \sum_i \alpha_{k,i} \, \mathrm{ReLU}(\overline{g}_{k,i}), \qquad
              \alpha_{k,i} = \frac{\overline{g^2}_{k,i}}
                             {2 \, \overline{g^2}_{k,i} + \overline{g^3}_{k,i} \sum_j A_{k,j}}

    Omeiza et al., *Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for Deep Convolutional Neural
    Network Models*, 2019, arXiv:1908.01224, eq. 8 to 10. A is the clean activation, the bars are means over all noisy
    samples. Where the mean square is zero, the weight is.

    Args:
        activation: ``(B, C, *grid)``, of the clean input.
        moments: means over the noisy samples of g, g^2 and g^3: ``(B, 3, C, *grid)``.
    """
    first, second, third = moments.unbind(1)
    # Squares and cubes of gradients leave float32's range: scaled by the root mean square per sample, and back.
    scale = second.flatten(1).mean(1).sqrt().clamp(min=torch.finfo(second.dtype).tiny ** 0.5)
    scale = scale.reshape(-1, *[1] * (second.ndim - 1))
    squares, cubes = second / scale**2, third / scale**2
    share = 2 * squares + cubes * per_place(activation.flatten(2).sum(2), activation)
    alpha = torch.where(share == 0, torch.zeros_like(share), squares / torch.where(share == 0, 1, share))
    return (alpha * first.clamp(min=0)).flatten(2).sum(2)


@WeightedSum
def xgradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""XGrad-CAM: gradients averaged by where the channel is active.

    .. math:: w_k = \sum_i \frac{A_{k,i}}{\sum_j A_{k,j}} \, g_{k,i}

    Fu et al., *Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs*, BMVC 2020,
    arXiv:2008.02312, eq. 8. Channels that sum to zero get no weight (no epsilon is added, which would change the sign
    of channels with small negative sums).
    """
    total = activation.flatten(2).sum(2)
    weighted = torch.einsum("bcn,bcn->bc", activation.flatten(2), gradient.flatten(2))
    return torch.where(total == 0, torch.zeros_like(total), weighted / torch.where(total == 0, 1, total))


@WeightedSum
def hirescam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""HiResCAM: gradient times activation, place by place.

    .. math:: L = \sum_k g_k \odot A_k

    Draelos and Carin, *Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks*,
    2020, arXiv:2011.08891, eq. 4. It adds up to the score wherever all that follows the layer is homogeneous.
    """
    return gradient


def elementwise(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Element-wise Grad-CAM: the positive part of gradient times activation, summed over channels.

    .. math:: L = \sum_k \mathrm{ReLU}(g_k \odot A_k)

    As in pytorch-grad-cam's ``GradCAMElementWise``; never negative.
    """
    return (full_precision(activation) * full_precision(gradient)).clamp(min=0).sum(1)


@WeightedSum
def layercam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""LayerCAM: each place weighted by its own positive gradient; for shallow layers too.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \mathrm{ReLU}(g_k) \odot A_k\Big)

    Jiang et al., *LayerCAM: Exploring Hierarchical Class Activation Maps for Localization*, IEEE TIP 2021, eq. 5 and 6.
    The paper's fusion of layers is ``fuse="layercam"``.
    """
    return gradient.clamp(min=0)


@WeightedSum
def odam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""ODAM: gradient times activation, place by place, with the gradient smoothed: made for one detected object.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \Phi(g_k) \odot A_k\Big)

    Zhao and Chan, *ODAM: Gradient-based instance-specific visual explanations for object detection*, ICLR 2023,
    arXiv:2304.06354: no mean over places, because the gradient of an object is where the object is. The local smoothing
    :math:`\Phi` is here a Gaussian of one cell's standard deviation, whose weights sum to one at the edges too; the
    authors' code for FCOS smooths nothing and is then :func:`hirescam`.
    """
    return _smoothed(gradient)


def _smoothed(maps: Tensor, deviation: float = 1.0) -> Tensor:
    """Maps ``(B, C, *grid)`` averaged over their neighbours."""
    for axis in range(2, maps.ndim):
        place = torch.arange(maps.shape[axis], dtype=maps.dtype, device=maps.device)
        near = torch.exp(-((place[:, None] - place) ** 2) / (2 * deviation**2))
        near = near / near.sum(1, keepdim=True)
        maps = torch.tensordot(maps, near, dims=([axis], [1])).movedim(-1, axis)
    return maps


@WeightedSum
def gcame(activation: Tensor, gradient: Tensor, image: Tensor) -> Tensor:
    r"""G-CAME: Grad-CAM that looks only around the object: each channel behind a Gaussian where its gradient peaks.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k
              \big(\alpha^+_k \, G(c^+_k, \sigma^+_k) - \alpha^-_k \, G(c^-_k, \sigma^-_k)\big) \odot A_k\Big), \qquad
              \sigma = \frac{3 \, |\ln \alpha| \, \ln s}{\lfloor (\sqrt{Z} - 1) / 2 \rfloor}

    with :math:`\alpha^\pm` the mean of the gradient's positive and negative part, c the place where that part is
    largest, s the input's pixels per cell (of one axis), Z the number of cells and G a Gaussian scaled to 0..1.
    Nguyen et al., *G-CAME: Gaussian-Class Activation Mapping Explainer for Object Detectors*, 2023, arXiv:2306.03400.
    As in the authors' code, :math:`\sigma` is at least one cell. (Their code for two-stage detectors adds the negative
    part instead of subtracting it, and centres it where it is weakest.) It depends on the units of the score.

    Args:
        activation: ``(B, C, *grid)``.
        gradient: of one object's score, which is nearly zero elsewhere.
        image: ``(B, C, *size)``; only its size matters.
    """
    pixels, cells = math.prod(image.shape[2:]), math.prod(gradient.shape[2:])
    stride = (pixels / cells) ** (1 / (gradient.ndim - 2))
    return _around_peak(gradient.clamp(min=0), stride) - _around_peak((-gradient).clamp(min=0), stride)


def _around_peak(part: Tensor, stride: float) -> Tensor:
    """The mean of each channel of ``(B, C, *grid)``, fading with the distance from where it is largest."""
    flat = part.flatten(2)
    mean, peak = flat.mean(2, keepdim=True), flat.argmax(2)
    reach = max(1, math.floor((math.sqrt(flat.shape[2]) - 1) / 2)) / 3
    deviation = (mean.log().abs() / reach * math.log(stride)).clamp(min=1)
    places = torch.cartesian_prod(*[torch.arange(side, device=part.device) for side in part.shape[2:]])
    places = places.reshape(flat.shape[2], -1)
    distance = sum((axis - axis[peak][..., None]) ** 2 for axis in places.unbind(1))
    bell = torch.exp(-distance / (2 * deviation**2))
    low = bell.amin(2, keepdim=True)
    bell = torch.where(low < 1, (bell - low) / (1 - low), bell)
    return torch.where(mean > 0, mean * bell, torch.zeros_like(bell)).reshape(part.shape)


@WeightedSum
def shapleycam(activation: Tensor, gradient: Tensor, curvature: Tensor) -> Tensor:
    r"""ShapleyCAM: Grad-CAM with the second-order term of the channels' Shapley values.

    .. math:: w_k = \frac{1}{Z} \sum_i \Big(g - \tfrac{1}{2} H A\Big)_{k,i}

    Cai, *CAMs as Shapley Value-based Explainers*, 2025, arXiv:2501.06261, eq. 20. It differs from Grad-CAM only where
    the score bends after the layer: with smooth activations, attention, or
    the paper's own target, ``target=hookmap.ReST("predicted")``.

    Args:
        activation: ``(B, C, *grid)``.
        gradient: of the score.
        curvature: the Hessian of the score times the activation, same shape.
    """
    return (gradient - curvature / 2).flatten(2).mean(2)


def eigengradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Eigen-Grad-CAM: the first principal component of gradient times activation.

    .. math:: L = (g \odot A)^\top v_1

    with the channels as features, the places as samples (centred) and :math:`v_1` the first right singular vector: the
    class-discriminative form of Eigen-CAM from pytorch-grad-cam. A singular vector has no sign; the map is given the
    one in which it agrees with HiResCAM.
    """
    product = full_precision(activation) * full_precision(gradient)
    return oriented(first_component(product, centred=True), product.sum(1))


def segeigencam(activation: Tensor, gradient: Tensor) -> Tensor:
    r"""Seg-Eigen-CAM: the first principal component of the activation times the gradient's magnitude.

    .. math:: L = s \, (|g| \odot A)^\top v_1, \qquad s = -1 \text{ if } |\min| > |\max| \text{ else } 1

    Chung and Ying, *Seg-Eigen-CAM: Eigen-Value-Based Visual Explanations for Semantic Segmentation Models*, Applied
    Sciences 2025, 15(13) 7562, eq. 10 to 13; places are centred, as in the authors' code.
    """
    product = full_precision(activation) * full_precision(gradient).abs()
    return most_extreme(first_component(product, centred=True))


def finer(scores: Tensor, index: Tensor, *, strength: float = 0.6, references: int = 3) -> Tensor:
    r"""Finer-CAM's score: what speaks for a class and not for the classes most like it.

    .. math:: s = \frac{1}{n} \sum_{d} \big(y_c - \gamma \, y_d\big)

    over the n classes :math:`d` whose logits are closest to the target's. Zhang et al., *Finer-CAM: Spotting the
    Difference Reveals Finer Details for Visual Explanation*, CVPR 2025, arXiv:2501.11309, with the paper's
    :math:`\gamma` = 0.6 and three references. (pytorch-grad-cam weights the references by their probabilities, which
    it differentiates too, and uses :math:`\gamma` = 1.)

    Args:
        scores: logits ``(B, K)``.
        index: the target class of each sample, ``(B,)``.
        strength: :math:`\gamma`.
        references: how many classes to compare with, at most K - 1.

    Returns:
        The score ``(B,)`` whose gradient Grad-CAM then uses.
    """
    if scores.shape[1] < 2:
        raise LayerError("finercam compares a class with others, and the model's output has only one")
    own = scores.gather(1, index[:, None])
    distance = (scores - own).detach().abs().scatter(1, index[:, None], torch.inf)
    nearest = distance.topk(min(references, scores.shape[1] - 1), largest=False).indices
    return (own - strength * scores.gather(1, nearest)).mean(1)
