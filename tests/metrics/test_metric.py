"""One class for any metric, over many images."""

from __future__ import annotations

import pytest
import torch

import hookmap as hm
from worlds import CELLS, linear, seeded


def test_a_metric_gathers_images_and_gives_their_mean() -> None:
    w, metric = linear(), hm.metrics.Metric(hm.metrics.srg, cells=CELLS, steps=4)
    maps = [seeded(2, CELLS, CELLS, seed=seed) for seed in (1, 2, 3)]
    values = torch.stack([metric.update(w.scorer, w.image, m) for m in maps])
    assert values[0].equal(hm.metrics.srg(w.scorer, w.image, maps[0], cells=CELLS, steps=4))
    assert metric.values.equal(values)
    assert metric.compute().equal(values.mean(0))
    metric.reset()
    with pytest.raises(hm.HookmapError, match="no image yet"):
        metric.compute()


def test_it_takes_whatever_its_function_takes() -> None:
    metric = hm.metrics.Metric(hm.metrics.energy)
    mask = torch.tensor([[True, False]])
    metric.update(torch.tensor([[[3.0, 1]]]), mask)
    metric.update(torch.tensor([[[1.0, 1]]]), mask)
    assert metric.compute().tolist() == [0.625]


def test_another_number_of_maps_gets_a_sentence() -> None:
    metric = hm.metrics.Metric(hm.metrics.complexity)
    metric.update(torch.ones(2, 3, 3))
    with pytest.raises(hm.HookmapError, match="3 maps of this image and were 2"):
        metric.update(torch.ones(3, 3, 3))
    assert metric.values.shape == (1, 2)
