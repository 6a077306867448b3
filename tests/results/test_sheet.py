"""Results by name, and sheets: every heatmap has a tile of its own, beside the photo and in line with its like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import hookmap as hm
from hookmap.images.loading import Picture
from hookmap.methods import METHODS
from hookmap.render.overlay import resized
from hookmap.results.explanation import Explanation
from tiny import OF_ATTENTION, images, tiny

pytestmark = pytest.mark.filterwarnings("ignore::hookmap.HookmapWarning")


@pytest.fixture(scope="module")
def both(lens: hm.Lens, cat: Path, coffee: Path) -> Explanation:
    return lens.explain(
        [cat, coffee], ["predicted", "espresso"], ["blocks.5", "bn2"], ["gradcam", "gradcampp", "occlusion"], budget=9
    )


# ---------------------------------------------------------------- names


def test_names_pick_what_they_name_in_any_order(both: Explanation) -> None:
    assert len(both) == 2 * 2 * (2 * 2 + 1)
    for names, count in [
        ("cat", 10),
        ("espresso", 15),  # asked for on both, and predicted on one
        ("tiger cat", 5),
        ("282", 5),
        ("bn2", 8),
        ("Grad-CAM++", 8),
        ("grad_cam", 8),
        (("coffee", "bn2", "gradcam"), 2),
        (("gradcam", "bn2", "coffee"), 2),
        (("cat", "espresso", "blocks.5", "gradcampp"), 1),
        (("occlusion", "input"), 4),
        ((), 20),
    ]:
        found = both[names]
        assert isinstance(found, Explanation)
        assert len(found) == count, names
    (one,) = both["cat", "espresso", "blocks.5", "gradcampp"]
    assert (one.picture.name, one.target, one.layer, one.method.name) == ("cat", "espresso", "blocks.5", "gradcampp")
    assert [*both["cat"]["bn2"]] == [*both["bn2", "cat"]]
    assert both[3] is [*both][3]
    assert [*both[2:5]] == [*both][2:5]


def test_a_name_that_fits_nothing_is_answered_with_those_that_do(both: Explanation) -> None:
    known = "cat, coffee, tiger cat, espresso, blocks.5, bn2, input, gradcam, gradcampp, occlusion"
    with pytest.raises(KeyError) as error:
        both["layercam", "bn2"]
    sentence, listed = error.value.args[0].split("; there are ")
    assert sentence == "no heatmap here is called 'layercam' and 'bn2'"
    assert set(listed.split(", ")) == set(known.split(", "))
    with pytest.raises(KeyError, match="called 'occlusion' and 'bn2'"):  # each exists, together they don't
        both["occlusion", "bn2"]


def test_only_one_heatmap_has_a_figure(both: Explanation) -> None:
    with pytest.raises(hm.HookmapError, match=r"holds 10 heatmaps; index one, e.g. explanation\[0\].figure"):
        both["cat"].figure()
    assert both["cat"][:1].figure().axes


# ---------------------------------------------------------------- sheets

Tile = tuple[int, int, Image.Image]


@pytest.fixture
def laid(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Image.Image, list[Tile], dict[str, Any]]]:
    """Draws a sheet; gives it, the pictures laid on it, each with its left and top, and where what is written."""
    pasted: list[tuple[Image.Image, Tile]] = []
    words: dict[str, Any] = {}
    paste, text = Image.Image.paste, ImageDraw.ImageDraw.text

    def noted(page: Image.Image, picture: Image.Image, box: Any = None, mask: Any = None) -> None:
        if isinstance(picture, Image.Image) and box is not None:
            pasted.append((page, (*box[:2], picture)))
        paste(page, picture, box, mask)

    def written(page: Any, place: tuple[float, float], line: str, *look: Any, **more: Any) -> None:
        words[line] = place
        text(page, place, line, *look, **more)

    def draw(explanation: Explanation, **look: Any) -> tuple[Image.Image, list[Tile], dict[str, Any]]:
        words.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "paste", noted)
            patch.setattr(ImageDraw.ImageDraw, "text", written)
            sheet = explanation.overlay(**look)
        return sheet, [tile for page, tile in pasted if page is sheet], dict(words)

    return draw


def assert_whole(sheet: Image.Image, tiles: list[Tile]) -> None:
    """Every tile lies on the page and is neither cut nor covered by another."""
    pixels = np.asarray(sheet)
    for left, top, picture in tiles:
        assert np.array_equal(pixels[top : top + picture.height, left : left + picture.width], np.asarray(picture))
    assert len({(left, top) for left, top, _ in tiles}) == len(tiles)


def rows_and_columns(tiles: list[Tile]) -> tuple[int, int]:
    return len({top for _, top, _ in tiles}), len({left for left, _, _ in tiles})


def thumbnail(picture: Picture, like: Image.Image) -> np.ndarray:
    return np.asarray(resized(picture.pixels, like.size[::-1]))


def test_one_heatmap_is_drawn_as_itself(both: Explanation) -> None:
    assert both[:1].overlay().size == (451, 300)
    assert both[:1].overlay(size=900).size == (900, 599)
    assert np.array_equal(np.asarray(both[:1].overlay()), np.asarray(both[0].overlay()))


def test_methods_go_down_and_layers_across(both: Explanation, laid: Callable) -> None:
    some = both["cat", "tiger cat"]
    sheet, tiles, words = laid(some)
    assert_whole(sheet, tiles)
    photo, *rest = tiles
    assert np.array_equal(np.asarray(photo[2]), thumbnail(some[0].picture, photo[2]))
    assert len(rest) == len(some) == 5
    assert rows_and_columns(rest) == (3, 2)
    places = {}
    for heatmap in some:
        (place,) = [
            t for t in rest if np.array_equal(np.asarray(t[2]), np.asarray(heatmap.painted(size=max(t[2].size))))
        ]
        places[heatmap.method.name, heatmap.layer] = place
    for method in ("gradcam", "gradcampp"):
        assert places[method, "blocks.5"][1] == places[method, "bn2"][1]
    for layer in ("blocks.5", "bn2"):
        assert places["gradcam", layer][0] == places["gradcampp", layer][0]
        assert words[layer][0] == places["gradcam", layer][0]
    for title, method in (("Grad-CAM", "gradcam"), ("Grad-CAM++", "gradcampp")):
        _, top, tile = places[method, "bn2"]
        assert top < words[title][1] < top + tile.height
    # The method without a layer begins its own row.
    assert places["occlusion", "input"][0] == places["gradcam", "blocks.5"][0]


def test_every_image_is_shown_beside_its_heatmaps(both: Explanation, lens: hm.Lens, laid: Callable) -> None:
    sheet, tiles, _ = laid(both["gradcam", "bn2"])  # two images, two targets
    assert_whole(sheet, tiles)
    photos = [h.picture for h in (both["cat"][0], both["coffee"][0])]
    shown = [sum(np.array_equal(np.asarray(t[2]), thumbnail(photo, t[2])) for t in tiles) for photo in photos]
    assert min(shown) >= 1
    sheet, tiles, _ = laid(both)
    assert_whole(sheet, tiles)


@pytest.mark.parametrize(("count", "targets"), [(3, [0, 1]), (2, [0, 1, 2]), (3, [0]), (1, [0, 1, 2]), (2, [0, 1])])
@pytest.mark.parametrize("methods", [["gradcam"], ["gradcam", "edges", "random"]])
@pytest.mark.parametrize("layers", [["bend2"], ["bend1", "norm2", "bend2"]])
def test_one_tile_per_heatmap(
    count: int, targets: list[int], methods: list[str], layers: list[str], laid: Callable
) -> None:
    explanation = hm.Lens(tiny(torch.float32)).explain(
        images(count, dtype=torch.float32), target=targets, method=methods, layer=layers
    )
    sheet, tiles, _ = laid(explanation)
    if len(explanation) == 1:
        return
    assert_whole(sheet, tiles)
    known = {id(h.picture): h.picture for h in explanation}
    photos = [t for t in tiles if any(np.array_equal(np.asarray(t[2]), thumbnail(p, t[2])) for p in known.values())]
    assert len(tiles) - len(photos) == len(explanation)
    assert len(photos) >= count or (len(targets), len(methods), len(layers)) == (1, 1, 1)


def test_classes_and_functions_of_one_name_are_all_shown(laid: Callable) -> None:
    def margin(which: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def of(output: torch.Tensor) -> torch.Tensor:
            return output[:, which] - output[:, 0]

        return of

    cranes = hm.Lens(tiny(torch.float32), labels=["crane", "egret", "crane", "heron", "ibis"])
    x = images(dtype=torch.float32)
    for targets in ([0, 1, 2], [margin(1), margin(2), 3]):
        explanation = cranes.explain(x, target=targets, method=["gradcam", "xgradcam"], layer="norm1")
        sheet, tiles, _ = laid(explanation)
        assert_whole(sheet, tiles)
        assert len(tiles) == 1 + len(explanation) == 7
        assert rows_and_columns(tiles[1:]) == (2, 3) or targets != [0, 1, 2]


def test_all_methods_fit_on_a_page(laid: Callable) -> None:
    lens, x = hm.Lens(tiny(torch.float32)), images(dtype=torch.float32)
    explanation = lens.explain(x, target=2, method="all", layer=["bend1", "bend2"], budget=8)
    assert {heatmap.method.name for heatmap in explanation} >= set(METHODS) - {"cam", "gcame"} - OF_ATTENTION
    sheet, tiles, _ = laid(explanation)
    assert_whole(sheet, tiles)
    assert len(tiles) == 2 + len(explanation)  # the photo, and the key to signed colours
    assert 0.7 < sheet.width / sheet.height < 2.5


def test_a_sheet_is_saved_whole(both: Explanation, tmp_path: Path) -> None:
    path = both["cat"].save(tmp_path / "sheet.png", colormap="magma")
    with Image.open(path) as saved:
        assert saved.size == both["cat"].overlay().size


def test_classes_of_one_image_share_a_scale_and_the_sheet_says_so(lens: hm.Lens, cat: Path, laid: Callable) -> None:
    explanation = lens.explain(cat, ["tiger cat", "golden retriever"])
    _, tiles, words = laid(explanation)
    assert "All tiles have one colour scale." in words
    photo, sure, unsure = (np.asarray(tile[2], int) for tile in tiles)
    inside = slice(20, -20), slice(70, -70)
    assert np.abs(sure - photo)[inside].max() > 100
    assert (
        np.abs(unsure - photo)[inside].max() < 60
    )  # alone it glows: its own strongest place is drawn as the strongest
    alone = np.asarray(explanation[1].painted(size=300), int)
    assert np.abs(alone - photo)[inside].max() > 100
    assert (
        "Each tile has its own colour scale, up to its strongest evidence."
        in laid(lens.explain(cat, method=["gradcam", "layercam"]))[2]
    )
    assert (
        "All tiles have one colour scale, up to 0.5." in laid(lens.explain(cat, ["tabby", "tiger cat"]), limit=0.5)[2]
    )


def test_a_sheet_of_signed_maps_says_which_colour_is_for(lens: hm.Lens, cat: Path, laid: Callable) -> None:
    words = laid(lens.explain(cat, ["tiger cat", "tabby"], part="signed"))[2]
    assert {"against", "for"} <= words.keys()
