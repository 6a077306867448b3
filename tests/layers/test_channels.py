from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hookmap as hm
from hookmap.layers.channels import ChannelStatistics
from networks import noise


def plainly(activation, ids, k):
    """Everything from the definition, value by value, in Python's own numbers."""
    images, channels, *grid = activation.shape
    for c in range(channels):
        values = activation[:, c].double().flatten().tolist()
        mean = sum(values) / len(values)
        ranked = []
        for b in range(images):
            cells = {tuple(i): float(activation[(b, c, *i)]) for i in np.ndindex(*grid)}
            top = max(cells.values())
            # Of equals the one whose neighbours, those at corners too, are larger; then the first.
            sums = {
                i: sum(v for j, v in cells.items() if all(abs(a - b) <= 1 for a, b in zip(i, j, strict=True)))
                for i in cells
                if cells[i] == top
            }
            first = max(sums, key=sums.get)
            ranked.append((-top, -sums[first], ids[b], [(i + 0.5) / n for i, n in zip(first, grid, strict=True)]))
        ranked = sorted(ranked)
        ties = sum(entry[0] == ranked[0][0] for entry in ranked)
        ranked = ranked[:k]
        yield {
            "mean": mean,
            "variance": sum((v - mean) ** 2 for v in values) / len(values),
            "sparsity": sum(v <= 0 for v in values) / len(values),
            "range": (min(values), max(values)),
            "dead": len(set(values)) == 1,
            "strongest": [-v for v, _, _, _ in ranked],
            "sums": [-s for _, s, _, _ in ranked],
            "images": [i for _, _, i, _ in ranked],
            "places": [p for _, _, _, p in ranked],
            "ties": ties,
        }


def check(found, activation, ids, k):
    assert found.images == len(activation)
    assert found.count == activation[:, 0].numel()
    for c, truth in enumerate(plainly(activation, ids, k)):
        assert float(found.mean[c]) == pytest.approx(truth["mean"], rel=1e-12, abs=1e-12)
        assert float(found.variance[c]) == pytest.approx(truth["variance"], rel=1e-10, abs=1e-12)
        assert float(found.sparsity[c]) == truth["sparsity"]
        assert (float(found.least[c]), float(found.most[c])) == truth["range"]
        assert bool(found.dead[c]) is truth["dead"]
        some = len(truth["images"])
        assert int(found.ties[c]) == truth["ties"]
        assert found.strongest[c, :some].tolist() == truth["strongest"]
        assert found.strongest_sums[c, :some].tolist() == pytest.approx(truth["sums"], rel=1e-12, abs=1e-12)
        assert found.strongest_images[c, :some].tolist() == truth["images"]
        assert found.strongest_places[c, :some].tolist() == truth["places"]
        assert (found.strongest[c, some:] == -torch.inf).all()
        assert found.strongest_places[c, some:].isnan().all()
        assert not any(found.strongest_images[c, some:])


@pytest.mark.parametrize("grid", [(), (5,), (3, 4), (2, 3, 2)], ids=str)
def test_a_batch_is_what_its_values_say(grid):
    activation = noise(4, 3, *grid)
    activation[:, 2] = 0.1  # dead, and its mean in float64 isn't exactly its value
    names = ["d", "b", "a", "c"]
    check(ChannelStatistics.of(activation, names, k=3), activation, names, 3)
    check(ChannelStatistics.of(activation, names, k=6), activation, names, 6)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_merged_parts_are_the_whole_in_whatever_order(data):
    # Few different values: many images are equally strong.
    numbers = st.integers(-1, 2)
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=5))
    activation = torch.tensor(
        data.draw(st.lists(numbers, min_size=sum(sizes) * 12, max_size=sum(sizes) * 12)), dtype=torch.float32
    ).reshape(-1, 2, 2, 3)
    ids = data.draw(st.permutations(range(sum(sizes))))
    k = data.draw(st.integers(1, 4))
    starts = np.cumsum([0, *sizes])
    parts = [ChannelStatistics.of(activation[a:b], ids[a:b], k) for a, b in pairwise(starts)]
    shuffled = data.draw(st.permutations(parts))
    check(reduce(ChannelStatistics.merged, shuffled), activation, ids, k)
    # Another tree of merges.
    half = len(parts) // 2
    left, right = (reduce(ChannelStatistics.merged, some) for some in (parts[:half], parts[half:]))
    check(right.merged(left), activation, ids, k)


def test_a_large_offset_does_not_drown_the_variance():
    activation = noise(6, 2, 4, 4).double() + 1e7
    parts = [ChannelStatistics.of(part, [str(i)]) for i, part in enumerate(activation.split(1))]
    whole = reduce(ChannelStatistics.merged, parts)
    truth = (activation - 1e7).var((0, 2, 3), correction=0)
    torch.testing.assert_close(whole.variance, truth, rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_double(dtype):
    activation = (noise(3, 2, 40, 40) + 100).to(dtype)  # the sum is beyond float16
    found = ChannelStatistics.of(activation, [0, 1, 2])
    torch.testing.assert_close(found.mean, activation.double().mean((0, 2, 3)))


def test_a_channel_is_dead_only_if_all_parts_have_the_same_value():
    zeros, ones = (
        ChannelStatistics.of(torch.full((1, 1, 2, 2), value), [name]) for value, name in ((0.0, "a"), (1.0, "b"))
    )
    assert zeros.dead.all()
    assert not zeros.merged(ones).dead.any()
    assert zeros.merged(zeros).dead.all()


def test_nan_spoils_its_channel_and_no_other():
    activation = noise(2, 2, 3, 3)
    activation[0, 0, 1, 1] = torch.nan
    found = ChannelStatistics.of(activation, ["a", "b"], k=2)
    assert found.mean.isnan().tolist() == [True, False]
    assert not found.dead.any()
    assert sorted(found.strongest_images[0]) == ["a", "b"]
    assert found.strongest.isfinite().all()
    assert found.strongest[0].max() == activation[:, 0].nan_to_num(-9).max()


def test_what_does_not_fit_is_refused():
    with pytest.raises(hm.LayerError, match="3 ids"):
        ChannelStatistics.of(noise(2, 4, 3, 3), [1, 2, 3])
    with pytest.raises(hm.LayerError, match=r"shape \(0, 4\)"):
        ChannelStatistics.of(torch.zeros(0, 4), [])
    one = ChannelStatistics.of(noise(1, 4, 3, 3), ["a"])
    for other in (noise(1, 5, 3, 3), noise(1, 4)):
        with pytest.raises(hm.LayerError, match="can't be merged"):
            one.merged(ChannelStatistics.of(other, ["b"]))
    with pytest.raises(hm.LayerError, match="the same k"):
        one.merged(ChannelStatistics.of(noise(1, 4, 3, 3), ["b"], k=2))
