"""Looking at attention: every head's map, how far heads look, rollout over depth; closed forms and plain code."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.attribution.attention import _filled
from networks import convnet, noise
from tiny import close
from trained import WEIGHTS

SIDE, CELL, CELLS = 48, 8, 6


def vit(**more: Any) -> nn.Module:
    import timm

    torch.manual_seed(0)
    known = {"img_size": SIDE, "patch_size": CELL, "embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", **{**known, **more}).double().eval()


def without_class_token() -> nn.Module:
    return vit(class_token=False, global_pool="avg")


def sharper(model: nn.Module, factor: float = 6.0) -> nn.Module:
    """Attention that prefers some tokens, as in trained models."""
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(factor)
    return model


def looking(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Each block's attention (heads, N, N), by hand."""
    found: list[Tensor] = []

    def read(block: nn.Module, given: tuple[Tensor], _: Any) -> None:
        attention = block.attn
        tokens = block.norm1(given[0])
        q, k, _v = attention.qkv(tokens)[0].reshape(tokens.shape[1], 3, attention.num_heads, -1).permute(1, 2, 0, 3)
        found.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1))

    handles = [block.register_forward_hook(read) for block in model.blocks]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def x_of() -> Tensor:
    return noise(1, 3, SIDE, SIDE).double()


# ---------------------------------------------------------------- what every head looks at


def test_every_head_of_every_layer_is_the_row_of_the_class_token() -> None:
    model, x = sharper(vit()), x_of()
    found = hm.Lens(model).attention(x)
    wanted = torch.stack([weights[:, 0, 1:].reshape(4, CELLS, CELLS) for weights in looking(model, x)])
    assert list(found) == [f"blocks.{n}.attn" for n in range(3)]
    assert close(found.maps, wanted, 1e-9)
    assert found.asked == "the class token"
    assert list(hm.Lens(model).attention(x, layer="blocks.1")) == ["blocks.1.attn"]


def test_without_a_class_token_all_tokens_look() -> None:
    model, x = sharper(without_class_token()), x_of()
    found = hm.Lens(model).attention(x)
    wanted = torch.stack([weights.mean(1).reshape(4, CELLS, CELLS) for weights in looking(model, x)])
    assert close(found.maps, wanted, 1e-9)
    assert torch.allclose(found.maps.sum((2, 3)), torch.ones(3, 4).double())


@pytest.mark.parametrize("make", [vit, without_class_token])
def test_a_patch_that_is_clicked_looks(make: Callable[[], nn.Module]) -> None:
    model, x = sharper(make()), x_of()
    found = hm.Lens(model).attention(x, at=(17.0, 33.5))  # column 2, row 4
    before = model.num_prefix_tokens
    wanted = [weights[:, before + 4 * CELLS + 2, before:].reshape(4, CELLS, CELLS) for weights in looking(model, x)]
    assert close(found.maps, torch.stack(wanted), 1e-9)
    assert (found.asked, found.box) == ("the patch at x 17 y 33.5", (16, 32, 24, 40))
    with pytest.raises(hm.TargetError, match="outside of what the model sees"):
        hm.Lens(model).attention(x, at=(60, 3))


def swin(window: int = 3) -> nn.Module:
    import timm

    torch.manual_seed(0)
    known = {"img_size": 48, "patch_size": 4, "window_size": window, "embed_dim": 16}
    return timm.create_model(
        "swin_tiny_patch4_window7_224", **known, depths=(2, 2), num_heads=(2, 4), num_classes=5
    ).eval()


def test_a_patch_of_windows_looks_within_its_own() -> None:
    """Windows of 3x3 cells of 4 pixels; those of every second block are shifted by one cell."""
    found = hm.Lens(swin()).attention(noise(1, 3, 48, 48), at=(2.0, 2.0))
    first, second, *_ = found.values()
    assert first.shape == (2, 12, 12)
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[:3, :3] = True
    assert bool((first[:, inside] > 0).all())
    assert not bool(first[:, ~inside].any())
    # Before the shift the first cell is in the corner of a window that is cut off by the picture's edge.
    assert int((second[0] > 1e-6).sum()) == 1
    assert torch.allclose(first.sum((1, 2)), torch.ones(2))
    with pytest.raises(hm.LayerError, match="differ in heads or grids"):
        _ = found.maps


def test_one_window_over_the_whole_picture_is_laid_back_too() -> None:
    from torchvision.models import SwinTransformer

    torch.manual_seed(0)
    model = SwinTransformer([4, 4], 16, [2, 2], [2, 4], [6, 6], num_classes=5).eval()
    found = hm.Lens(model).attention(noise(1, 3, 48, 48))
    assert [tuple(m.shape) for m in found.values()] == [(2, 12, 12)] * 2 + [(4, 6, 6)] * 2
    for maps in found.values():
        assert torch.allclose(maps.sum((1, 2)), torch.ones(len(maps)))


def test_two_threads_look_at_one_model() -> None:
    model, images = sharper(vit()), [x_of(), x_of().flip(-1)]
    lens = hm.Lens(model)
    alone = [lens.attention(x).maps for x in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda n: lens.attention(images[n % 2]).maps, range(8)))
    assert all(torch.equal(maps, alone[n % 2]) for n, maps in enumerate(together))


def test_rows_are_read_and_not_all_of_n_x_n(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    from hookmap.hooks.attention import FusedAttention

    plain = FusedAttention._weights

    def noted(self: FusedAttention, queries: slice) -> Tensor:
        asked.append(len(range(*queries.indices(self.queries))))
        return plain(self, queries)

    monkeypatch.setattr(FusedAttention, "_weights", noted)
    hm.Lens(vit()).attention(x_of())
    hm.Lens(vit()).attention(x_of(), at=(3, 3))
    assert max(asked) == 1
    monkeypatch.setattr("hookmap.attribution.attention._BYTES_AT_ONCE", 4 * 4 * 36 * 5)
    hm.Lens(without_class_token()).attention(x_of())
    hm.Lens(without_class_token()).attention_distances(x_of())
    assert max(asked) == 5


def test_a_network_without_attention_says_so() -> None:
    lens, x = hm.Lens(convnet()), noise(1, 3, 48, 48)
    for look in (lens.attention, lens.attention_distances, lens.attention_rollout):
        with pytest.raises(hm.LayerError, match="has no attention that can be read"):
            look(x)
    with pytest.raises(hm.LayerError, match=r"no attention ran in norm; it ran in blocks\.0\.attn"):
        hm.Lens(vit()).attention(x_of(), layer="norm")
    with pytest.raises(hm.ImageError, match="one image"):
        hm.Lens(vit()).attention(torch.cat([x_of(), x_of()]))


def test_the_model_is_left_as_it_was() -> None:
    model = vit(drop_rate=0.1).train()
    model.blocks[0].requires_grad_(False)
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    random = torch.get_rng_state()
    lens = hm.Lens(model)
    with torch.inference_mode():
        lens.attention(x_of(), at=(3, 3))
        lens.attention_distances(x_of())
        lens.attention_rollout(x_of())
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


# ---------------------------------------------------------------- artefacts


class Loud(nn.Module):
    """Adds to one patch's token, late, what nothing else reads."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.token = token

    def forward(self, x: Tensor) -> Tensor:
        louder = torch.zeros_like(x)
        louder[:, self.token] = 60
        return x + louder


def test_tokens_with_an_outlying_norm_are_named_and_left_out_on_request() -> None:
    model, x = sharper(vit()), x_of()
    plain = hm.Lens(model).attention(x)
    assert plain.artefacts is None
    model.blocks[2].ls2 = Loud(1 + 3 * CELLS + 1)
    with pytest.warns(hm.HookmapWarning, match=r"row 3 column 1 .*without_artefacts=True"):
        found = hm.Lens(model).attention(x)
    assert found.artefacts is not None
    assert (found.artefacts.layer, found.artefacts.places) == ("blocks.2", ((3, 1),))
    assert torch.equal(found.maps, plain.maps)
    with pytest.warns(hm.HookmapWarning, match="they are left out"):
        without = hm.Lens(model).attention(x, without_artefacts=True)
    hole = torch.zeros(CELLS, CELLS, dtype=torch.bool)
    hole[3, 1] = True
    assert torch.equal(without.maps[..., ~hole], plain.maps[..., ~hole])
    around = [plain.maps[..., r, c] for r in (2, 3, 4) for c in (0, 1, 2) if (r, c) != (3, 1)]
    assert torch.allclose(without.maps[..., 3, 1], torch.stack(around).mean(0))


def test_a_hole_is_filled_from_its_edge() -> None:
    hole = torch.zeros(5, 5, dtype=torch.bool)
    hole[1:4, 1:4] = True
    maps = torch.full((2, 5, 5), 3.0)
    maps[:, hole] = 100.0
    assert torch.equal(_filled(maps, hole), torch.full((2, 5, 5), 3.0))
    assert torch.equal(_filled(maps, torch.ones(5, 5, dtype=torch.bool)), maps)


# ---------------------------------------------------------------- how far


def distances_between_cells(cells: int = CELLS, cell: float = CELL) -> Tensor:
    rows, columns = torch.meshgrid(*[torch.arange(cells).double() * cell] * 2, indexing="ij")
    places = torch.stack([rows, columns], -1).reshape(-1, 2)
    return torch.cdist(places, places)


def test_even_attention_looks_as_far_as_the_mean_of_all_distances() -> None:
    model = vit()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.zero_()
    found = hm.Lens(model).attention_distances(x_of())
    assert found.distances.shape == (3, 4)
    assert torch.allclose(found.distances.double(), distances_between_cells().mean().expand(3, 4), rtol=1e-5)


def test_attention_to_oneself_looks_nowhere_else() -> None:
    model = vit(class_token=False, global_pool="avg", num_heads=1)
    for block in model.blocks:  # queries and keys are the same, and far from those of all others
        block.norm1, block.attn.qkv = Apart(), Same()
    found = hm.Lens(model).attention_distances(x_of())
    assert float(found.distances.max()) < 1e-3


class Apart(nn.Module):
    """Tokens that are long and far from each other, whatever came."""

    def forward(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[1]).double() * 2 * math.pi / x.shape[1]
        waves = [wave(angle * n) for n in range(1, x.shape[2] // 2 + 1) for wave in (torch.cos, torch.sin)]
        return 0 * x + 100 * torch.stack(waves, -1).to(x)


class Same(nn.Module):
    """Queries, keys and values are the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x, x], -1)


@pytest.mark.parametrize("make", [vit, without_class_token])
def test_distances_are_those_of_plain_code(make: Callable[[], nn.Module]) -> None:
    model, x = sharper(make()), x_of()
    before, far = model.num_prefix_tokens, distances_between_cells()
    wanted = []
    for weights in looking(model, x):
        patches = weights[:, before:, before:]
        wanted.append(((patches * far).sum(-1) / patches.sum(-1)).mean(-1))
    assert torch.allclose(hm.Lens(model).attention_distances(x).distances.double(), torch.stack(wanted), rtol=1e-5)


def test_windows_look_no_further_than_they_reach() -> None:
    found = hm.Lens(swin()).attention_distances(noise(1, 3, 48, 48))
    even = distances_between_cells(3, 4).mean()
    assert torch.allclose(found["layers.0.blocks.0.attn.softmax"].double(), even, rtol=0.05)  # untrained: nearly even
    assert found.distances.shape == (4, 4)
    assert bool(found.distances[:2, 2:].isnan().all())


# ---------------------------------------------------------------- rollout over depth


def test_rollout_up_to_each_layer_is_the_product_of_the_matrices() -> None:
    model, x = sharper(vit()), x_of()
    found = hm.Lens(model).attention_rollout(x)
    product, wanted = torch.eye(1 + CELLS**2).double(), []
    for weights in looking(model, x):
        mixed = (weights.mean(0) + torch.eye(1 + CELLS**2)) / 2
        product = mixed @ product
        wanted.append(product[0, 1:].reshape(CELLS, CELLS))
    assert close(found.maps, torch.stack(wanted), 1e-9)
    last = hm.Lens(model).explain(x, target=0, method="rollout").raw[0]
    assert torch.equal(found.maps[-1], last)


# ---------------------------------------------------------------- how they look


def test_they_draw_themselves(tmp_path: Path, cat: Path) -> None:
    lens = hm.Lens(vit().float(), preprocessing=hm.Preprocessing((SIDE, SIDE), 48, (0.5,) * 3, (0.5,) * 3))
    attention, distances, rollout = (
        look(cat) for look in (lens.attention, lens.attention_distances, lens.attention_rollout)
    )
    for place, result in {"sheet.png": attention, "far.png": distances, "far.svg": distances}.items():
        assert result.save(tmp_path / place).stat().st_size > 2000
    one = lens.attention(cat, layer="blocks.2", at=(240, 110))
    assert one.page().size == one.heads().size
    assert one.page().width > attention.heads().height
    with Image.open(rollout.save(tmp_path / "film.webp")) as film:
        assert (film.n_frames, film.info["loop"]) == (3, 0)
    with Image.open(rollout.save(tmp_path / "strip.png")) as strip:
        assert strip.width > 2.5 * 160
    for result in (attention, distances, rollout):
        assert "<img" in result._repr_html_()
    with pytest.raises(hm.HookmapError, match=r"doesn't end in an image format"):
        attention.save(tmp_path / "sheet.txt")
    with pytest.raises(hm.LayerError, match="there is no attention of 'norm'"):
        attention.heads("norm")


def test_the_brightest_cell_of_a_head_is_the_brightest_tile_of_the_sheet() -> None:
    found = hm.Lens(sharper(vit())).attention(x_of())
    one = found["blocks.2.attn"][1]
    drawn = torch.from_numpy(np.asarray(found._bare(one).convert("L"), dtype=np.float32))
    cells = F.adaptive_avg_pool2d(drawn[None], CELLS)[0]
    assert int(cells.argmax()) in one.flatten().topk(2).indices.tolist()


# ---------------------------------------------------------------- a network that was really trained

DINOV2 = WEIGHTS / "dinov2-small"


@pytest.mark.skipif(not DINOV2.exists(), reason="the weights of a trained DINOv2 aren't on this machine")
def test_of_a_trained_dinov2_it_is_what_its_own_eager_attention_gives(cat: Path) -> None:
    transformers = pytest.importorskip("transformers")
    eager = transformers.Dinov2ForImageClassification.from_pretrained(
        DINOV2, dtype=torch.float32, attn_implementation="eager"
    )
    lens = hm.Lens(str(DINOV2), device="cpu")
    x = next(lens.engine.batches(cat, 1)).x
    with torch.no_grad():
        output = eager.eval()(x, output_attentions=True)
    weights = torch.cat(output.attentions)
    found = lens.attention(cat)
    assert torch.allclose(found.maps, weights[:, :, 0, 1:].reshape(12, 6, 16, 16), atol=1e-6)
    patches, far = weights[:, :, 1:, 1:], distances_between_cells(16, 14).float()
    wanted = ((patches * far).sum(-1) / patches.sum(-1)).mean(-1)
    assert torch.allclose(lens.attention_distances(cat).distances, wanted, rtol=1e-4)
    depth = lens.logit_lens(cat)
    assert torch.allclose(depth.probabilities[-1], output.logits.softmax(-1)[0], atol=1e-5)
