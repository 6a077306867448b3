"""Whether a map depends on the model, on the class that is asked for, and on noise that nobody sees.

A map that fails here is no explanation, however it looks; one that passes may still be wrong. Maps are compared by
Spearman's correlation of their places: their units differ, which place matters more than which is all that they
promise, and removal (:mod:`hookmap.metrics.removal`) reads nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn

from hookmap.errors import HookmapError
from hookmap.metrics.correlation import on_cpu, spearman
from hookmap.metrics.faithfulness import Explain, explained
from hookmap.metrics.removal import one_or_more

ExplainModel: TypeAlias = Callable[[nn.Module, Tensor], Tensor]
"""From a model and an input ``(C, *size)`` to its map ``(h, w)``."""


def emprt(explain: ExplainModel, model: nn.Module, image: Tensor, *, bins: int = 100, seed: int = 0) -> Tensor:
    r"""Efficient model parameter randomisation test: how much more complex the map is when the weights are random.

    .. math:: \frac{\xi(m_{\text{random}}) - \xi(m)}{\xi(m)}, \qquad
              \xi = -\sum_b p_b \ln p_b

    with :math:`p_b` the share of the map's values in each of equally wide bins between its extremes. A map that follows
    the model has structure; of a random model there is none. Hedström et al., *Sanity Checks Revisited: An Exploration
    to Repair the Model Parameter Randomisation Test*, 2023, arXiv:2401.06465. Unlike the plain test (Adebayo et al.,
    arXiv:1810.03292) it doesn't call noise a success: no two maps are compared.

    Pitfall: on coarse grids there are fewer places than bins, and the entropy says little: compare methods on one grid.

    Args:
        explain: gives the map of a model and an input.
        model: is left as it is; a copy is randomised.
        image: ``(C, *size)``.
        bins: of the histogram.
        seed: of the random weights.

    Returns:
        ``()``; above 0 the random model's map is the more complex one, NaN for a map that is the same everywhere.

    Raises:
        HookmapError: for a model that can't be copied, or has no weights.
    """
    *_, random = randomised(model, seed)
    before, after = (_histogram_entropy(explain(of, image), bins) for of in (model, random))
    return (after - before) / before


def smprt(
    explain: ExplainModel,
    model: nn.Module,
    image: Tensor,
    *,
    samples: int = 50,
    noise: float = 0.1,
    seed: int = 0,
) -> Tensor:
    r"""Smooth model parameter randomisation test: how alike maps stay while layer by layer the weights become random.

    .. math:: \frac{1}{L} \sum_{l=1}^{L} \rho\big(\bar m, \bar m_l\big), \qquad
              \bar m = \frac{1}{n} \sum_{i=1}^{n} m(x + \epsilon_i)

    from the last layer to the first, each map being the mean over noisy inputs, so that a method isn't called sensitive
    because it is noisy. Hedström et al., arXiv:2401.06465; the layers one after the other as Adebayo et al.,
    arXiv:1810.03292. Layers are those that can be initialised, in the reverse order of their registration.

    Pitfall: the shape of a network (what is at the border, where strides fall) shows in all its maps, random or not; so
    does an image's contrast. Compare methods rather than read the number.

    Args:
        explain: gives the map of a model and an input.
        model: is left as it is; a copy is randomised.
        image: ``(C, *size)``.
        samples: noisy inputs per map.
        noise: its standard deviation, as a share of the range of the image's values.
        seed: of the noise and of the random weights.

    Returns:
        ``()``, -1..1; smaller is better.

    Raises:
        HookmapError: for a model that can't be copied, or has no weights.

    Costs ``samples`` maps for each layer and once more.
    """
    inputs = noisy(image, noise, samples, seed)

    def smooth(of: nn.Module) -> Tensor:
        return torch.stack([on_cpu(explain(of, x)) for x in inputs]).mean(0)

    whole = smooth(model).reshape(1, -1)
    return torch.cat([spearman(whole, smooth(random).reshape(1, -1)) for random in randomised(model, seed)]).mean()


def stability(explain: Explain, image: Tensor, *, noise: float = 0.01, samples: int = 8, seed: int = 0) -> Tensor:
    r"""How alike the map stays under noise that nobody sees.

    .. math:: \frac{1}{n} \sum_{i=1}^{n} \rho\big(m(x), m(x + \epsilon_i)\big)

    Pitfall: a map that never looks at the image is perfectly stable.

    Args:
        explain: gives the maps ``(K, h, w)`` of inputs ``(K, C, *size)``; of all for the same target.
        image: ``(C, *size)``.
        noise: its standard deviation, as a share of the range of the image's values.
        samples: so many noisy copies.
        seed: of the noise.

    Returns:
        ``()``, -1..1; larger is better.
    """
    maps = explained(explain, torch.cat([image[None], noisy(image, noise, samples, seed)])).flatten(1)
    return spearman(maps[:1], maps[1:]).mean()


def class_sensitivity(maps: Tensor, others: Tensor) -> Tensor:
    r"""How different the maps of another target are.

    .. math:: 1 - \rho(m, m')

    Sixt et al., *When Explanations Lie*, ICML 2020, arXiv:1912.09818 (the random logit test).

    Pitfall: where two classes are seen by the same evidence, their maps are rightly alike: ask for a class that is
    elsewhere, or about which the model says something else.

    Args:
        maps: ``(M, h, w)``, of one target.
        others: ``(M, h, w)``, of another, by the same methods.

    Returns:
        ``(M,)``, 0 (the same order of places) to 2 (reversed); about 1 for maps that have nothing in common.

    Raises:
        HookmapError: for maps of other shapes.
    """
    if maps.shape != others.shape:
        raise HookmapError(
            f"the maps are of shape {tuple(maps.shape)} and the others of {tuple(others.shape)}; "
            "expected the same methods, layers and image for both targets"
        )
    return 1 - spearman(maps.flatten(1), others.flatten(1))


def noisy(image: Tensor, noise: float, samples: int, seed: int) -> Tensor:
    """Copies ``(samples, C, *size)`` with Gaussian noise, whose deviation is a share of the image's range."""
    one_or_more(samples=samples)
    generator = torch.Generator().manual_seed(seed)
    errors = torch.randn(samples, *image.shape, generator=generator).to(image)
    return image + errors * (noise * (image.amax() - image.amin()))


def randomised(model: nn.Module, seed: int = 0) -> Iterator[nn.Module]:
    """A copy of the model whose layers are random, one more each time, from the last to the first.

    A layer is initialised as when it was built; where it can't do that itself, its own weights are shuffled. Always the
    same copy is given. The model, and the state of PyTorch's random numbers, stay as they are.

    Raises:
        HookmapError: for a model that can't be copied, or has no weights.
    """
    try:
        random = copy.deepcopy(model)
    except Exception as error:
        raise HookmapError(f"the model can't be copied, and yours isn't to be changed: {error}") from error
    layers = [layer for layer in random.modules() if [*layer.parameters(recurse=False)]]
    if not layers:
        raise HookmapError("the model has no weights that could be made random")
    devices = {weights.device for weights in random.parameters() if weights.is_cuda}
    for number, layer in enumerate(reversed(layers)):
        with torch.random.fork_rng([*devices]), torch.no_grad():
            torch.manual_seed(seed + number)
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
            else:
                for weights in layer.parameters(recurse=False):
                    weights.copy_(weights.flatten()[torch.randperm(weights.numel())].view_as(weights))
        yield random


def _histogram_entropy(values: Tensor, bins: int) -> Tensor:
    counts = torch.histc(on_cpu(values), bins)
    entropy: Tensor = torch.special.entr(counts / values.numel()).sum()
    return entropy
