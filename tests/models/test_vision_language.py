"""Families of vision-language models: what they are given, and where the tokens of the picture are."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hookmap as hm
from answering_models import FAMILIES, TOWERS, built
from hookmap.images.geometry import Geometry

QUESTION = "what is the man holding ?"
TILED = ("llava_next", "llava_onevision", "gemma3_crops", "internvl", "idefics3", "smolvlm")


def picture(height: int = 64, width: int = 112) -> np.ndarray:
    cells = np.random.default_rng(0).integers(0, 255, (math.ceil(height / 8), math.ceil(width / 8), 3))
    return np.kron(cells, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)


@pytest.mark.parametrize("family", [*FAMILIES, *TOWERS])
def test_an_answer_that_is_given_is_said_with_the_logits_with_which_it_was_made(family: str) -> None:
    adapter = built(family)
    lens = hm.Lens(adapter)
    with warnings.catch_warnings():
        warnings.simplefilter("error", hm.HookmapWarning)
        answer = lens.ask(picture(), QUESTION, max_tokens=6, progress=False)
    given = adapter.prompt(answer.picture, QUESTION)
    own = adapter.generated(given, 6).logits
    batch = answer.batch
    with torch.no_grad():
        forced = batch.engine.called(batch.x).logits[0]
    assert len(answer.ids) == len(own)
    torch.testing.assert_close(forced, own, atol=1e-5 * float(own.abs().max()), rtol=0)
    said = own.log_softmax(1).gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
    torch.testing.assert_close(answer.log_probabilities, said, atol=1e-5, rtol=1e-4)


def silenced(model: nn.Module) -> None:
    """No token of the picture hears of another."""
    tower = model.get_encoder("image")
    tower = model.git.image_encoder if tower is model else tower
    for name, module in tower.named_modules():
        last = name.rpartition(".")[2]
        writes = last in ("out_proj", "projection_layer", "projection", "proj", "o_proj")
        if isinstance(module, nn.Linear) and writes and "patch" not in name and "merger" not in name:
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def supports(grid: Tensor, x: Tensor) -> list[tuple[int, int, int, int] | None]:
    """The box (top, bottom, left, right) of pixels on which each cell of ``(1, C, *grid)`` depends."""
    found = []
    weights = torch.randn(grid.shape[1], generator=torch.Generator().manual_seed(0))
    for cell in grid[0].flatten(1).T:
        (slope,) = torch.autograd.grad((cell * weights).sum(), x, retain_graph=True, allow_unused=True)
        on = slope[0].abs().sum(0) > 1e-9 * max(float(slope.abs().max()), 1e-30)
        rows, columns = on.any(1).nonzero().flatten(), on.any(0).nonzero().flatten()
        box = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
        found.append(box if bool(slope.any()) else None)
    return found


def given_by(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What a layer gives, with its graph."""
    kept: list[Any] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    model(x)
    hook.remove()
    return kept[0] if isinstance(kept[0], Tensor) else kept[0].last_hidden_state


def box_of(view: Geometry, cell: tuple[int, int], cells: tuple[int, int]) -> list[float]:
    """Where a cell of a view lies on the input."""
    ends = []
    for axis in (0, 1):
        side = view.input[axis] / cells[axis]
        ends += [((cell[axis] + k) * side - view.offset[axis]) / view.scale[axis] for k in (0, 1)]
    return ends


SIZES = [(64, 112), (112, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("family", [*FAMILIES, *(name for name in TOWERS if name != "florence2")])
def test_every_token_of_the_picture_sees_its_own_cell(family: str, size: tuple[int, int]) -> None:
    adapter = built(family)
    silenced(adapter.plain)
    answer = hm.Lens(adapter).ask(picture(*size), QUESTION, max_tokens=2, progress=False)
    engine, mosaic = answer.batch.engine, adapter.prompt(answer.picture, QUESTION).mosaic
    x = answer.batch.x.clone().requires_grad_()
    assert (len(mosaic.views) > 1) == (family in TILED)
    for layer in engine.choice(x).layers:
        layout = engine.trace(x).layout(layer)
        given = given_by(engine.called, layer, x)
        cells = layout.grid[-2:]
        boxes = iter(supports(layout.to_grid(given), x))
        for view in mosaic.within:
            reach = 1e-6 if view.scale == (1.0, 1.0) else 1 / min(view.scale) + 1
            for row in range(cells[0]):
                for column in range(cells[1]):
                    box, own = next(boxes), box_of(view, (row, column), cells)
                    assert box is not None
                    assert all(box[i] >= own[i] - reach for i in (0, 2))
                    assert all(box[i] <= own[i] + reach for i in (1, 3))


def test_a_processor_that_mirrors_pictures_is_refused() -> None:
    adapter = built("llava")

    class Mirrored(type(adapter.processor.image_processor)):  # type: ignore[misc]
        def preprocess(self, images, **options):  # type: ignore[no-untyped-def]
            given = super().preprocess(images, **options)
            given["pixel_values"] = given["pixel_values"].flip(-1)
            return given

    adapter.processor.image_processor.__class__ = Mirrored
    with pytest.raises(hm.ModelError, match="something else with pictures"):
        hm.Lens(adapter).ask(picture(), QUESTION, progress=False)
