"""Concepts made weaker: their components leave the activation, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from hookmap.attribution.muting import ConceptMuting, muted
from networks import convnet, narrow_resnet, noise


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 2.0])
def test_a_concepts_component_is_what_a_hand_made_hook_takes_away(factor: float) -> None:
    """Coordinates by NumPy's least squares, place by place, in a hook of our own."""
    net = convnet().double()
    lens, x = hm.Lens(net, device="cpu"), noise(2, 3, 20, 24).double()
    vectors = noise(3, 8, seed=5).double()

    def hand_made(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        changed = output.clone()
        for b, row, column in np.ndindex(output.shape[0], *output.shape[2:]):
            here = output[b, :, row, column].detach().numpy()
            coordinates = np.linalg.lstsq(vectors.numpy().T, here, rcond=None)[0]
            for j in (0, 2):
                changed[b, :, row, column] -= (1 - factor) * coordinates[j] * vectors[j]
        return changed

    handle = net.bend2.register_forward_hook(hand_made)
    expected = net(x).detach()
    handle.remove()
    with muted(lens.engine, x, [ConceptMuting("bend2", vectors, (0, 2), factor)]):
        found = net(x).detach()
    torch.testing.assert_close(found, expected)
    assert len(net.bend2._forward_hooks) == 0


def test_the_other_concepts_and_what_none_explains_stay() -> None:
    net = convnet()
    lens, x = hm.Lens(net, device="cpu"), noise(1, 3, 20, 24)
    concepts = lens.concepts(x, layer="bend2", concepts=3)
    inverse = torch.linalg.pinv(concepts.vectors)
    with hm.capture(net, ["bend2"], gradients=False) as plain:
        net(x)
    with lens.muted(concepts, [1], image=x), hm.capture(net, ["bend2"], gradients=False) as seen:
        net(x)
    before, after = (one["bend2"].activation.flatten(2)[0].T for one in (plain, seen))
    coordinates, left = before @ inverse, after @ inverse
    assert left[:, 1].abs().max() < 1e-4 < coordinates[:, 1].abs().max()
    torch.testing.assert_close(left[:, [0, 2]], coordinates[:, [0, 2]], atol=1e-4, rtol=1e-4)
    residual = [one - m @ concepts.vectors for one, m in ((before, coordinates), (after, left))]
    torch.testing.assert_close(residual[0], residual[1], atol=1e-4, rtol=1e-4)


def test_predictions_and_heatmaps_are_those_of_the_model_without_it(lens: hm.Lens, cat: Path) -> None:
    concepts = lens.concepts(cat, layer="blocks.5", concepts=4, seed=0)
    before = lens.explain(cat, 282)[0]
    with lens.muted(concepts, [0]):
        without = lens.explain(cat, 282)[0]
    with lens.muted(concepts, [0], factor=1.0):
        same = lens.explain(cat, 282)[0]
    assert abs(without.score - before.score) > 0.1
    assert same.score == pytest.approx(before.score, abs=1e-3)
    torch.testing.assert_close(same.raw, before.raw, atol=1e-3, rtol=1e-3)
    assert lens.explain(cat, 282)[0].score == before.score  # the model itself isn't changed


def test_a_concept_that_isnt_there_is_said() -> None:
    lens = hm.Lens(narrow_resnet(), device="cpu")
    x = noise(1, 3, 64, 64)
    concepts = lens.concepts(x, layer="layer3", concepts=2)
    with (
        pytest.raises(hm.LayerError, match="'layer3' has concepts 0 to 1; 2 doesn't exist"),
        lens.muted(concepts, [2], image=x),
    ):
        pass
