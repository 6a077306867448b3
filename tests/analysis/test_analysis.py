"""What a run reveals: closed forms on runs with known maps, and a shortcut that a trained network really takes."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu, spearmanr
from sklearn.metrics import silhouette_samples
from torch import nn

import hookmap as hm
from hookmap.analysis import channel_atlas, class_means, clusters, compare, confusions, focus, outcomes, places
from hookmap.analysis.crops import attended_crops, described
from hookmap.analysis.focus import cliffs_delta
from hookmap.analysis.frames import NotApplicableError, frames, regions
from hookmap.analysis.grouping import separation
from hookmap.datasets.reader import Sample
from hookmap.errors import DataError, LayerError
from hookmap.layers import receptive
from hookmap.layers.channels import ChannelStatistics
from hookmap.methods import METHODS
from hookmap.metrics.summary import measured
from hookmap.results.heatmap import Heatmap
from hookmap.runs.channels import ChannelRecorder
from hookmap.runs.job import ImageResult
from hookmap.runs.results import Run, open_run
from hookmap.runs.rows import geometry_of, tables
from hookmap.runs.store import Store
from networks import convnet, noise
from pictures import REPOSITORY

CLASSES = ("cat", "dog", "owl")
GRID = 4


def peak(y: int, x: int, others: float = 0.0) -> torch.Tensor:
    """A map of one cell."""
    values = torch.full((GRID, GRID), others)
    values[y, x] = 1
    return values


def built(
    folder: Path,
    maps: Sequence[torch.Tensor],
    predictions: Sequence[int],
    labels: Sequence[int | None] | None = None,
    *,
    size: tuple[int, int] = (64, 64),
    crop: int = 0,
    pictures: Sequence[Image.Image] | None = None,
    recorder: ChannelRecorder | None = None,
    about: dict | None = None,
) -> Run:
    """A run as the engines write it, of maps that are known.

    Args:
        crop: so many pixels at each side of the picture aren't seen.
    """
    geometry = hm.Geometry.identity(size).shifted((size[0] - 2 * crop, size[1] - 2 * crop), crop, crop)
    answers = []
    for i, (values, prediction) in enumerate(zip(maps, predictions, strict=True)):
        label = None if labels is None else labels[i]
        sample = Sample(f"{i:03d}.png", label=label, geometry=geometry)
        if pictures is not None:
            buffer = io.BytesIO()
            pictures[i].save(buffer, "JPEG", quality=95)
            sample.thumbnail = buffer.getvalue()
        heatmap = Heatmap(
            values,
            hm.Picture(np.zeros((*size, 3), np.uint8), sample.id),
            geometry,
            METHODS["gradcam"],
            "features",
            CLASSES[prediction],
            prediction,
            1.0,
            0.5 + i / 1000,
        )
        name = None if label is None else CLASSES[label]
        answers.append(ImageResult(sample, name, label, heatmap, [("predicted", heatmap)]))
    store = Store(folder)
    store.folder.mkdir(parents=True)
    store.describe({"model": {"name": "known"}, **(about or {})})
    store.commit(0, tables(answers) | (recorder.tables() if recorder else {}))
    return open_run(folder)


def test_nothing_is_flagged_by_the_few_maps_that_show_evidence(tmp_path: Path) -> None:
    corner = [peak(0, 0) for _ in range(30)]
    nothing = [-torch.ones(GRID, GRID)] * 20 + [1e-4 * peak(3, 3) - peak(1, 1)] * 10 + [torch.ones(GRID, GRID)] * 5
    middle = [peak(GRID // 2, GRID // 2) for _ in range(60)]
    maps, predictions = [*corner, *middle], [0] * 30 + [1] * 60
    assert places(built(tmp_path / "spoken for", maps, predictions)).flagged["name"].dropna().tolist() == [CLASSES[0]]
    run = built(tmp_path / "silent", [*maps, *nothing], [*predictions, *[0] * 35])
    found = places(run)
    row = found.table.set_index("name").loc[CLASSES[0]]
    assert (row["count"], row["silent"], row["flag"]) == (30, 35, "")
    means = class_means(run)
    assert means.silent == 35
    assert means.table.set_index("name")["far"].to_dict() == {CLASSES[0]: False, CLASSES[1]: True}
    torch.testing.assert_close(means.maps[1], class_means(built(tmp_path / "b", maps, predictions)).maps[1])


def test_class_means_are_those_of_the_maps_and_their_distance_is_the_heat_that_moves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    maps = [torch.rand(GRID, GRID) for _ in range(40)] + [peak(0, 0) for _ in range(10)] + [torch.zeros(GRID, GRID)]
    run = built(tmp_path / "run", maps, [0] * 20 + [1] * 20 + [2] * 10 + [0])
    found = class_means(run, side=16)
    table = found.table.set_index("name")
    assert found.silent == 1
    assert table["count"].to_dict() == {"cat": 20, "dog": 20, "owl": 10}
    # Independently: each map over its picture by torch's own interpolation.
    framed = torch.nn.functional.interpolate(torch.stack(maps[:50])[:, None], (16, 16), mode="bilinear")[:, 0].double()
    framed /= framed.sum((1, 2), keepdim=True)
    for name, some in (("cat", framed[:20]), ("dog", framed[20:40]), ("owl", framed[40:])):
        place = found.table.index[found.table["name"] == name][0]
        np.testing.assert_allclose(found.maps[place], some.mean(0), atol=1e-5)
        moved = (some.mean(0) - framed.mean(0)).clamp(min=0).sum()  # what one has more is what the other has less
        assert table.loc[name, "distance"] == pytest.approx(float(moved), abs=1e-4)
    # Two classes of the same kind aren't farther than groups drawn by chance; the third is.
    assert table["far"].to_dict()["owl"]
    assert table.loc["owl", "distance"] > 0.7
    same = class_means(built(tmp_path / "same", maps[:40], [0, 1] * 20), side=16)
    assert not same.table["far"].any()


@pytest.mark.parametrize("crop", [0, 8, 16])
def test_uniform_shares_are_what_the_measures_say_of_an_even_map(tmp_path: Path, crop: int) -> None:
    # All but even: of an even map nothing is said.
    run = built(tmp_path / "run", [1 + 1e-5 * peak(0, 0)] * 3, [0] * 3, size=(96, 96), crop=crop)
    found = frames(run, side=96)
    even = measured(torch.ones(1, 1), geometry_of(run.table.loc[0]))
    seen = 96 - 2 * crop
    border = 1 - min(0.8 * 96, seen) ** 2 / seen**2
    assert found.uniform_shares[0, 0] == pytest.approx(border, abs=1e-5)
    assert found.uniform_shares[0, 0] == pytest.approx(even.border, abs=0.02)
    np.testing.assert_allclose(found.shares, found.uniform_shares, atol=1e-5)
    table = places(run, side=96).table
    assert not table["flag"].any()
    corner = max(0.0, (0.2 * 96 - crop) / seen) ** 2
    assert table.loc[0, "corner_uniform"] == pytest.approx(corner, abs=1e-5)


def test_regions_are_shares_of_the_frame() -> None:
    np.testing.assert_allclose(regions(32).mean((1, 2)), [0.36, 0.04, 0.04, 0.04, 0.04], atol=1e-6)


def test_a_class_that_looks_into_a_corner_is_flagged_and_one_that_looks_everywhere_is_not(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    anywhere = [peak(*draw.integers(0, GRID, 2)) for _ in range(60)]
    cornered = [peak(GRID - 1, 0, 0.05) for _ in range(12)]
    few = [peak(0, 0) for _ in range(5)]
    run = built(tmp_path / "run", anywhere + cornered + few, [0] * 60 + [1] * 12 + [2] * 5)
    found = places(run)
    table = found.table.set_index("name")
    assert list(found.flagged["name"]) == ["dog"]  # of owls there are too few
    assert table.loc["dog", "flag"].startswith("bottom left corner")
    assert table.loc["dog", "corner_name"] == "bottom left"
    assert table.loc["dog", "corner"] > 4 * table.loc["dog", "corner_uniform"]
    assert found.mean.sum() == pytest.approx(1, abs=1e-5)


def test_a_model_that_crops_is_held_against_what_it_sees(tmp_path: Path) -> None:
    """The corner of what it sees is no corner of the picture."""
    run = built(tmp_path / "run", [peak(0, 0)] * 12, [0] * 12, crop=16)
    row = places(run).table.loc[1]
    assert row["border_uniform"] == row["corner_uniform"] == row["border"] == row["flag"].count("corner") == 0


def test_confusions_are_pairs_with_their_own_maps(tmp_path: Path) -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2, 2]
    predictions = [0, 1, 1, 1, 1, 0, 2, 2, 1]
    maps = [peak(0, 0), *[peak(1, 1), peak(1, 2), peak(1, 3)], peak(2, 2), peak(3, 3), *[peak(3, 0)] * 3]
    run = built(tmp_path / "run", maps, predictions, labels)
    found = confusions(run, least=1)
    assert (found.wrong, found.labelled) == (5, 9)
    assert [(p.label, p.prediction, p.count) for p in found.pairs] == [
        ("cat", "dog", 3),
        ("dog", "cat", 1),
        ("owl", "dog", 1),
    ]
    first = found.pairs[0]
    assert first.rows == [3, 2, 1]  # the surest first
    assert first.share == pytest.approx(3 / 4)
    framed = run.framed(side=32)
    np.testing.assert_allclose(first.map, framed[1:4].mean(0), atol=1e-6)
    np.testing.assert_allclose(first.label_map, framed[0], atol=1e-6)
    np.testing.assert_allclose(first.prediction_map, framed[4], atol=1e-6)
    assert [pair.count for pair in confusions(run, least=2).pairs] == [3]
    assert found.table["count"].sum() == 5
    with pytest.raises(NotApplicableError, match="labels aren't classes of the model"):
        confusions(built(tmp_path / "unlabelled", maps, predictions))


def test_cliffs_delta_is_what_the_rank_sum_says() -> None:
    draw = np.random.default_rng(0)
    for _ in range(5):
        one, other = draw.integers(0, 8, 30).astype(float), draw.integers(2, 9, 20).astype(float)
        u = mannwhitneyu(one, other).statistic
        assert cliffs_delta(one, other) == pytest.approx(2 * u / 600 - 1)
    assert cliffs_delta(np.array([1.0]), np.array([])) != cliffs_delta(np.array([]), np.array([1.0]))  # NaN


def test_focus_and_outcomes_are_those_of_the_table(tmp_path: Path) -> None:
    sharp, soft = [peak(1, i % 4) for i in range(8)], [peak(2, i % 4, 0.3 + i / 20) for i in range(6)]
    run = built(tmp_path / "run", sharp + soft, [0] * 14, [0] * 8 + [1] * 6)
    ends = focus(run, count=3)
    assert ends.most["half_area"].max() < ends.least["half_area"].min()
    assert list(ends.least.index) == [13, 12, 11]
    found = outcomes(run)
    table = found.table.set_index("measure")
    assert table.loc["half_area", "effect"] == -1  # every recognised image is more focused
    assert (table.loc["half_area", "n_right"], table.loc["half_area", "n_wrong"]) == (8, 6)
    assert table.loc["half_area", "right"] == pytest.approx(run.table["half_area"][:8].mean(), rel=1e-5)
    np.testing.assert_allclose(found.right, run.framed(range(8)).mean(0), atol=1e-6)
    assert "in_box" not in table.index  # there were no boxes


def test_separation_is_a_silhouette() -> None:
    draw = np.random.default_rng(0)
    vectors = np.concatenate([draw.normal(0, 1, (30, 3)), draw.normal(3, 1, (20, 3))])
    here = np.arange(50) >= 30
    assert separation(vectors, here) == pytest.approx(silhouette_samples(vectors, here)[here].mean())
    assert separation(vectors, np.ones(50, bool)) == 0


def test_clusters_of_maps_that_are_known(tmp_path: Path) -> None:
    """Two places and noise between them, in one of two classes."""
    draw = np.random.default_rng(0)
    jitter = [torch.from_numpy(draw.uniform(0, 0.1, (GRID, GRID))).float() for _ in range(60)]
    planted = [(peak(3, 3) if i < 12 else peak(1, 1)) + jitter[i] for i in range(40)]
    run = built(tmp_path / "run", planted + [peak(2, 1) + one for one in jitter[40:]], [0] * 40 + [1] * 20, [0] * 60)
    for algorithm in ("hdbscan", "spectral"):
        found = clusters(run, algorithm=algorithm)
        first = found[0]
        assert (first.name, sorted(first.rows)) == ("cat", list(range(12)))
        assert (first.corner_name, first.flagged) == ("bottom right", True)
        assert [one.size for one in found if one.name == "cat"] == [12, 28]
        assert (first.purity, first.accuracy, first.share) == (1, 1, pytest.approx(12 / 40))
        np.testing.assert_allclose(first.map, run.framed(range(12)).mean(0), atol=1e-6)
        assert not any(one.flagged for one in found.clusters[1:])
        again = clusters(run, algorithm=algorithm)
        assert [one.rows for one in again] == [one.rows for one in found]
    together = clusters(run, by=None)
    assert sorted(map(sorted, (one.rows for one in together))) == [[*range(12)], [*range(12, 40)], [*range(40, 60)]]
    assert together.skipped == clusters(run).skipped == []
    assert clusters(run, least=11).skipped == ["dog"]
    assert found.layout_figure("cat", "pca").size == (900, 900)
    where = found.layout("cat")
    assert np.ptp(where.loc[where["row"] < 12, "x"]) < np.ptp(where["x"])
    assert where["cluster"].tolist() == [1] * 12 + [2] * 28
    with pytest.raises(DataError, match="no class 'bird' was clustered"):
        found.layout("bird")
    for how in ({}, {"algorithm": "spectral"}):  # nothing to tell apart, and as few as can be
        alike = clusters(built(tmp_path / f"alike{len(how)}", [peak(1, 1)] * 12, [0] * 12), **how)
        assert alike.flagged == []
        assert len(clusters(built(tmp_path / f"four{len(how)}", planted[10:14], [0] * 4), least=2, **how)) <= 2
    with pytest.raises(DataError, match="'circles'"):
        clusters(run, "circles")  # type: ignore[arg-type]


def test_a_class_that_is_nothing_but_the_shortcut_is_held_against_the_others(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    maps = [
        peak(*((3, 3) if i < 15 else (1, 1))) + torch.from_numpy(draw.uniform(0, 0.1, (GRID, GRID))) for i in range(40)
    ]
    found = clusters(built(tmp_path / "run", maps, [0] * 15 + [1] * 25))
    assert [(one.name, one.size, one.share, one.flagged) for one in found] == [
        ("cat", 15, 1, True),
        ("dog", 25, 1, False),
    ]
    assert found[0].separation > 0.5


def painted(color: tuple[int, int, int], y: int, x: int, side: int = 64) -> Image.Image:
    """A grey picture with a colour in one cell of the grid."""
    cell = side // GRID
    picture = Image.new("RGB", (side, side), (120, 120, 120))
    picture.paste(color, (x * cell, y * cell, (x + 1) * cell, (y + 1) * cell))
    return picture


def test_attended_crops_hold_what_lies_under_the_heat(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    at = [tuple(map(int, draw.integers(0, GRID, 2))) for _ in range(24)]
    colors = [(220, 30, 30) if i < 12 else (30, 30, 220) for i in range(24)]
    pictures = [painted(color, *place) for color, place in zip(colors, at, strict=True)]
    run = built(tmp_path / "run", [peak(*place) for place in at], [0] * 24, pictures=pictures)
    for crop, color in zip(attended_crops(run, range(24), share=0.25), colors, strict=True):
        inner = np.asarray(crop, float)[4:-4, 4:-4].reshape(-1, 3).mean(0)
        assert np.abs(inner - color).max() < 30
    # Wherever they are in the picture, alike crops are found.
    found = clusters(run, "crops")
    assert sorted(map(sorted, (one.rows for one in found))) == [[*range(12)], [*range(12, 24)]]
    lens = hm.Lens(convnet().float(), preprocessing=hm.Preprocessing(size=(24, 32), resize=(24, 32)))
    vectors = described(attended_crops(run, range(24)), lens)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    near = vectors @ vectors.T
    assert near[:12, :12].mean() > near[:12, 12:].mean()


def watched(count: int) -> ChannelRecorder:
    """Channel 0 fires in cell (1, 2) of even images, channel 1 is dead, channel 2 fires in (3, 0) of odd ones."""
    grid = torch.zeros(count, 3, GRID, GRID)
    grid[::2, 0, 1, 2] = torch.arange(1.0, count // 2 + 1)
    grid[1::2, 2, 3, 0] = 1
    return ChannelRecorder({"features": ChannelStatistics.of(grid, [f"{i:03d}.png" for i in range(count)], 4)})


def test_channels_show_the_patches_that_excite_them(tmp_path: Path) -> None:
    pictures = [painted((220, 30, 30), 1, 2) if i % 2 == 0 else painted((30, 30, 220), 3, 0) for i in range(12)]
    how = {"pictures": pictures, "recorder": watched(12), "about": {"channels": {"features": [0.25, 0.25]}}}
    run = built(tmp_path / "run", [peak(0, 0)] * 12, [0, 1] * 6, [0, 2] * 6, **how)
    atlas = channel_atlas(run)
    assert (atlas.layer, atlas.field, atlas.dead) == ("features", (0.25, 0.25), [1])
    for channel, color in ((0, (220, 30, 30)), (2, (30, 30, 220))):
        patches = atlas.patches(channel)
        assert [patch.size for patch in patches] == [(16, 16)] * 4
        for patch in patches:
            assert np.abs(np.asarray(patch, float)[4:-4, 4:-4].reshape(-1, 3).mean(0) - color).max() < 30
    assert atlas.table["label"].tolist()[::2] == ["cat", "owl"]
    assert atlas.table["sparsity"].tolist() == pytest.approx([1 - 6 / 192, 1, 1 - 6 / 192])
    assert (atlas.search("dog"), atlas.search("CAT", "label"), atlas.search("dog", "prediction")) == ([2], [0], [2])
    with pytest.raises(DataError, match="there are cat, owl"):
        atlas.search("dog", "label")
    with pytest.raises(LayerError, match="no channel 3"):
        atlas.patches(3)
    with pytest.raises(LayerError, match="it watched features"):
        channel_atlas(run, "head")
    bare = built(tmp_path / "bare", [peak(0, 0)] * 12, [0, 1] * 6, recorder=watched(12))
    assert channel_atlas(bare).field == (0.75, 0.75)  # not measured: three cells
    with pytest.raises(NotApplicableError, match="channels=True"):
        channel_atlas(built(tmp_path / "none", [peak(0, 0)], [0]))


def receptive_field(lens: hm.Lens, layer: str, x: torch.Tensor, **how: Any) -> tuple[float, float]:
    return receptive.receptive_field(lens.engine.called, layer, lens.engine.grids(layer, x)[layer][1], x, **how)


def test_the_receptive_field_is_that_of_the_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 5, padding=2), nn.Flatten(), nn.LazyLinear(3))
    x = noise(2, 3, 33, 33).float()
    with torch.no_grad():
        for layer in net[:2]:
            layer.weight.uniform_(0.5, 1)
        net(x)
    lens = hm.Lens(net)
    assert receptive_field(lens, "0", x, share=1.0) == (3, 3)
    assert receptive_field(lens, "1", x, share=1.0) == (7, 7)
    high, wide = receptive_field(lens, "1", x, share=0.5)
    assert (high, wide) == (5, 5)
    assert all(p.grad is None for p in net.parameters())
    assert net.training


def test_the_receptive_field_holds_its_share_of_the_jacobian() -> None:
    net = convnet(classes=5).double().eval()
    x = noise(1, 3, 48, 64).double()
    seen: list[torch.Tensor] = []
    handle = net.bend1.register_forward_hook(lambda module, inputs, output: seen.append(output))

    def cell(pixels: torch.Tensor) -> torch.Tensor:
        seen.clear()
        net(pixels)
        grid = seen[0]
        return grid[0, :, grid.shape[2] // 2, grid.shape[3] // 2]

    energy = torch.autograd.functional.jacobian(cell, x).square().sum((0, 1, 2))
    rows, columns = seen[0].shape[2:]
    handle.remove()
    high, wide = receptive_field(hm.Lens(net), "bend1", x)
    y, x_ = (48 * (rows // 2 + 0.5) / rows, 64 * (columns // 2 + 0.5) / columns)
    down, across = (torch.arange(n) + 0.5 for n in energy.shape)
    inside = ((down - y).abs() <= high / 2)[:, None] & ((across - x_).abs() <= wide / 2)
    assert float(energy[inside].sum() / energy.sum()) >= 0.85  # 0.9, and the sampling's error
    smaller = ((down - y).abs() <= high / 2 - 1.5)[:, None] & ((across - x_).abs() <= wide / 2 - 1.5)
    assert float(energy[smaller].sum() / energy.sum()) < 0.9


def test_two_runs_are_joined_and_what_moved_most_comes_first(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    maps = [torch.from_numpy(draw.uniform(0.1, 1, (GRID, GRID))).float() for _ in range(4)]
    before = built(tmp_path / "before", maps, [0, 1, 2, 0])
    changed = [maps[0], maps[1].flip(1), peak(3, 3), torch.zeros(GRID, GRID), maps[0]]
    after = built(tmp_path / "after", changed, [0, 1, 1, 0, 0])
    found = compare(before, after)
    table = found.table.set_index("id")
    assert (found.only_before, found.only_after) == (0, 1)
    assert list(table.index) == ["002.png", "001.png", "000.png", "003.png"]
    assert list(table["changed"]) == [True, False, False, False]
    for row, (one, other) in enumerate(zip(before.framed(range(3)), after.framed(range(3)), strict=True)):
        told = table.loc[f"00{row}.png"]
        assert told["moved"] == pytest.approx(float((one - other).clip(0).sum()), abs=1e-4)
        flat = one.ravel() @ other.ravel() / np.sqrt((one**2).sum() * (other**2).sum())
        assert told["cosine"] == pytest.approx(flat, abs=1e-5)
        assert told["rank_correlation"] == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic, abs=1e-5)
    assert np.isnan(table.loc["003.png", ["moved", "cosine", "rank_correlation"]].astype(float)).all()
    Store(tmp_path / "other").folder.mkdir()
    Store(tmp_path / "other").describe({"model": {"name": "x"}})
    with pytest.raises(DataError, match="no heatmap in common"):
        compare(before, open_run(tmp_path / "other"))


def test_every_page_is_drawn_and_saved_also_without_thumbnails(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    maps = [torch.from_numpy(draw.uniform(0, 1, (GRID, GRID))).float() for _ in range(30)]
    labels = [i % 3 for i in range(30)]
    run = built(tmp_path / "run", maps, [0] * 10 + labels[10:], labels, size=(48, 80), recorder=watched(30))
    pages = [class_means(run), places(run), confusions(run), focus(run), outcomes(run), clusters(run, by=None)]
    for page in [*pages, channel_atlas(run), compare(run, run)]:
        path = page.save(tmp_path / "pages" / f"{type(page).__name__}.png")
        pixels = np.asarray(Image.open(path))
        assert min(pixels.shape[:2]) > 100
        assert pixels.std() > 5
    with pytest.raises(DataError, match="wasn't asked about 'dog'; pass one of 'predicted'") as unasked:
        class_means(run, asked="dog")
    assert not isinstance(unasked.value, NotApplicableError)
    with pytest.raises(NotApplicableError, match="no heatmap of .* shows evidence"):
        places(built(tmp_path / "dead", [torch.zeros(GRID, GRID)], [0]))


# ---------------------------------------------------------------- Clever Hans


@pytest.fixture(scope="module")
def hans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two networks, trained with watermarks on one class and without, over new pictures with and without them."""
    path = REPOSITORY / "examples" / "clever_hans.py"
    spec = importlib.util.spec_from_file_location("clever_hans", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    folder = tmp_path_factory.mktemp("hans")
    example.write_pictures(folder / "marked", 60, 0.4, seed=1)
    example.write_pictures(folder / "clean", 60, 0.0, seed=1)
    runs = {}
    for name, share, over in (("cheating", 0.4, ["marked"]), ("honest", 0.0, ["clean", "marked"])):
        example.write_pictures(folder / name, 150, share, seed=0)
        model = example.train(folder / name)
        for pictures in over:
            runs[f"{name}, {pictures}"] = example.explained(model, folder / pictures, folder / f"{name}-{pictures}")
    return runs


def marked(run: Run, rows: Sequence[int] | None = None) -> np.ndarray:
    names = run.table["id"] if rows is None else run.table.loc[list(rows), "id"]
    return names.str.contains("marked").to_numpy()


def test_a_planted_watermark_comes_out_as_the_most_suspicious_cluster(hans: dict[str, Run]) -> None:
    run = hans["cheating, marked"]
    assert run.table["correct"].astype(float).mean() > 0.9
    for algorithm in ("hdbscan", "spectral"):
        found = clusters(run, algorithm=algorithm)
        first = found[0]
        assert (first.name, first.flagged) == ("square", True)
        assert marked(run, first.rows).mean() >= 0.9
        assert marked(run, first.rows).sum() >= 0.8 * marked(run).sum()
        side = len(first.map)
        y, x = np.unravel_index(first.map.argmax(), first.map.shape)
        assert min(y, x) > 0.65 * side
        assert first.corner_name == "bottom right"
        assert [one for one in found.flagged if marked(run, one.rows).mean() < 0.9] == []
    assert list(places(run).flagged["name"]) == ["square"]
    best = clusters(run, "crops")[0]  # by what lies under the heat
    assert marked(run, best.rows).mean() >= 0.9


def test_where_there_are_no_watermarks_nothing_is_flagged(hans: dict[str, Run]) -> None:
    run = hans["honest, clean"]
    assert run.table["correct"].astype(float).mean() > 0.85
    for how in ({}, {"algorithm": "spectral"}, {"of": "crops"}, {"by": None}):
        assert clusters(run, **how).flagged == []
    assert len(places(run).flagged) == 0


def test_comparing_both_shows_that_the_heat_left_the_watermark(hans: dict[str, Run]) -> None:
    found = compare(hans["cheating, marked"], hans["honest, marked"])
    same = found.table[~found.table["changed"]]
    squares = same[same["prediction_before"] == "square"]
    moved = squares.groupby(squares["id"].str.contains("marked"))["moved"].median()
    assert moved[True] > 2 * moved[False]


def test_a_run_that_is_never_held_as_a_whole_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block and part by part, with nothing kept, beside all at once."""
    torch.manual_seed(0)
    maps = [torch.rand(GRID, GRID) for _ in range(40)] + [peak(0, 0) for _ in range(20)] + [-torch.ones(GRID, GRID)] * 3
    maps[5] = torch.rand(7, 3)  # another grid in between
    maps[8] = torch.rand(2, 5, 5)  # a clip
    predictions, labels = [i % 3 for i in range(63)], [(i + (i % 4 == 0)) % 3 for i in range(63)]
    about = {"size": (90, 64), "crop": 6}

    def all_of(run: Run) -> list[np.ndarray]:
        means, seen, right = class_means(run), places(run, "label"), outcomes(run)
        pairs = [array for pair in confusions(run).pairs for array in (pair.map, pair.label_map, pair.prediction_map)]
        tables = [one.table.select_dtypes("number").to_numpy(float) for one in (means, seen, right, confusions(run))]
        shares = [cluster.map for cluster in clusters(run, by=None)]
        return [
            means.maps,
            means.overall,
            seen.mean,
            seen.uniform,
            seen.maps,
            right.right,
            right.wrong,
            *pairs,
            *tables,
            *shares,
        ]

    whole = all_of(built(tmp_path / "one", maps, predictions, labels, **about))
    cut = built(tmp_path / "cut", maps, predictions, labels, **about)
    for kind in ("index", "maps", "pictures"):  # the same rows in parts of ten
        table = cut._store.read(kind)
        for path in cut._store.parts(kind):
            path.unlink()
        for part in range(7):
            pq.write_table(table.slice(10 * part, 10), cut.folder / f"{kind}.parquet" / f"part-{part:06d}.parquet")
    Store(cut.folder).describe({"model": {"name": "known"}})
    monkeypatch.setattr("hookmap.analysis.frames.HELD", 0)
    monkeypatch.setattr("hookmap.analysis.frames.BLOCK", 7)
    monkeypatch.setattr("hookmap.runs.parts.KEPT", 0)
    found = all_of(open_run(cut.folder))
    assert len(found) == len(whole) > 20
    for one, other in zip(found, whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    back = open_run(cut.folder)
    for row in (62, 0, 31, 8, 5):  # in any order
        torch.testing.assert_close(back.heatmap(row).raw, maps[row].float(), atol=1e-3, rtol=1e-3)


def test_chance_of_many_maps_is_that_of_draws_from_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    maps = [torch.rand(GRID, GRID) ** 2 for _ in range(400)]
    sizes = [240, 120, 40]
    predictions = [number for number, size in enumerate(sizes) for _ in range(size)]
    whole = class_means(built(tmp_path / "whole", maps, predictions)).table.set_index("name")["chance"]
    monkeypatch.setattr("hookmap.analysis.means._POOL", 200)  # groups of 20 from every other map, scaled
    some = class_means(built(tmp_path / "some", maps, predictions)).table.set_index("name")["chance"]
    np.testing.assert_allclose(some, whole, rtol=0.25)
    assert some.is_monotonic_increasing  # small classes are farther from anything


def test_of_a_large_run_some_of_each_class_are_clustered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = [peak(0, 0, 0.01 * (i % 7)) for i in range(60)] + [peak(2, 2, 0.01 * (i % 7)) for i in range(60)] * 2
    run = built(tmp_path / "run", [*maps, *maps[:12]], [0] * 180 + [1] * 12)
    monkeypatch.setattr(sys.modules["hookmap.analysis.clusters"], "MOST", 72)
    found = clusters(run)
    assert (found.taken, found.among) == (72, 192)
    assert {name: len(rows) for name, (rows, _) in found.vectors.items()} == {"cat": 60, "dog": 12}  # small ones whole
    rows = found.vectors["cat"][0]
    assert np.diff(rows).max() <= 4  # spread over all of the class
    corner = next(one for one in found if one.name == "cat" and one.rows[0] < 60)
    assert corner.count == 180
    assert corner.share == pytest.approx(1 / 3, abs=0.05)
