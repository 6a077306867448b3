"""The model's own head on every block's tokens, against norm and head by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import hookmap as hm
from hookmap.attribution import logit_lens
from networks import convnet, noise
from tiny import attentive, close, images

SIDE, CELLS = 48, 6


def timm_vit(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    known = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", **{**known, **more})
    if model.num_classes:
        nn.init.normal_(model.head.weight)
    return model.double().eval()


def torchvision_vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=SIDE, patch_size=8, num_layers=3, num_heads=4, hidden_dim=24, mlp_dim=48, num_classes=5
    )
    nn.init.normal_(model.heads.head.weight)
    return model.double().eval()


def x_of() -> Tensor:
    return noise(1, 3, SIDE, SIDE).double()


def tokens_of(model: nn.Module, blocks: nn.Module, x: Tensor) -> Tensor:
    """What each block gives, ``(L, N, C)``."""
    found: list[Tensor] = []
    handles = [block.register_forward_hook(lambda m, i, output: found.append(output)) for block in blocks]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return torch.cat(found)


def of_timm(more: dict[str, Any]) -> tuple[nn.Module, Tensor, Callable[[Tensor], Tensor]]:
    model = timm_vit(**more)
    return model, tokens_of(model, model.blocks, x_of()), lambda tokens: model.forward_head(model.norm(tokens))


def of_torchvision() -> tuple[nn.Module, Tensor, Callable[[Tensor], Tensor]]:
    model = torchvision_vit()
    tokens = tokens_of(model, model.encoder.layers, x_of())
    return model, tokens, lambda tokens: model.heads(model.encoder.ln(tokens)[:, 0])


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (lambda: of_timm({}), 1),
        (lambda: of_timm({"reg_tokens": 2}), 3),
        (lambda: of_timm({"class_token": False, "global_pool": "avg"}), 0),
        (lambda: of_timm({"class_token": False, "global_pool": "map"}), 0),
        (of_torchvision, 1),
    ],
)
def test_norm_and_head_by_hand(make: Callable[[], Any], prefix: int) -> None:
    model, tokens, head = make()
    with torch.no_grad():
        wanted = head(tokens)
        found = hm.Lens(model).logit_lens(x_of(), target=2)
        # A patch's token in the place of the class token; where the mean of patches is read, in that of all.
        alone = head(tokens[:, prefix:].reshape(-1, 1, 24).expand(-1, tokens.shape[1], -1))[:, 2]
        output = model(x_of())
    assert close(found.probabilities, wanted.softmax(1), 1e-9)
    assert close(found.likelihoods, wanted.softmax(1)[:, 2], 1e-9)
    assert close(found.probabilities[-1:], output.softmax(1), 1e-9)
    assert close(found.maps, alone.reshape(3, CELLS, CELLS), 1e-9)
    assert len(found.blocks) == 3


def test_the_sequence_may_come_first() -> None:
    found, other = (hm.Lens(attentive(batch_first=first)).logit_lens(images(), 2) for first in (True, False))
    assert close(other.probabilities, found.probabilities, 1e-9)
    assert close(other.maps, found.maps, 1e-9)


def test_a_head_that_wants_all_tokens_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 1 + CELLS**2:
                raise RuntimeError("all tokens, please")
            return x

    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.shape[1]

    for last in (Strict(), Counts()):
        model = timm_vit()
        model.norm = nn.Sequential(model.norm, last)
        with torch.no_grad():
            tokens = tokens_of(model, model.blocks, x_of())
            each = tokens[:, 1:].reshape(-1, 1, 24).expand(-1, 1 + CELLS**2, -1)
            wanted = model.forward_head(model.norm(each))[:, 2]
        with monkeypatch.context() as patch:
            patch.setattr(logit_lens, "_MOST_SCORES", 5 * 7)  # in many batches
            assert close(hm.Lens(model).logit_lens(x_of(), 2).maps, wanted.reshape(3, CELLS, CELLS), 1e-9)


def test_the_table_names_the_most_probable_classes() -> None:
    lens = hm.Lens(timm_vit(), labels=["ant", "bee", "cat", "dog", "elk"])
    found = lens.logit_lens(x_of())
    table = found.table
    assert list(table.columns) == ["block", "depth", "rank", "index", "class", "probability"]
    assert len(table) == 3 * 5
    last = table[table.depth == 3]
    prediction = lens.predict(x_of(), top=1)[0][0]
    assert (last.iloc[0]["class"], found.target) == (prediction.label, prediction.label)
    assert last.iloc[0].probability == pytest.approx(prediction.probability)
    assert last.probability.sum() == pytest.approx(1)
    assert found.table.groupby("block", sort=False).first().index.tolist() == list(found.blocks)


@pytest.mark.parametrize("target", ["cat", hm.Contrast("cat", "dog"), lambda output: output[:, 2] - output[:, 3]])
def test_other_targets_have_maps_of_their_scores(target: Any) -> None:
    lens = hm.Lens(timm_vit(), labels=["ant", "bee", "cat", "dog", "elk"])
    found, cat, dog = (lens.logit_lens(x_of(), which) for which in (target, "cat", "dog"))
    wanted = cat.maps if target == "cat" else cat.maps - dog.maps
    assert close(found.maps, wanted, 1e-9)


def test_models_that_are_no_row_of_blocks_are_refused() -> None:
    with pytest.raises(hm.LayerError, match="has no attention that can be read"):
        hm.Lens(convnet()).logit_lens(noise(1, 3, 48, 48))
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(1, 2), embed_dim=16)
    with pytest.raises(hm.LayerError, match=r"a logit lens needs a transformer of several blocks .* layers\.0"):
        hm.Lens(swin).logit_lens(noise(1, 3, 224, 224))
    with pytest.raises(hm.TargetError, match="of class scores, and vit_tiny_patch16_224 gives none"):
        hm.Lens(timm_vit(num_classes=0)).logit_lens(x_of(), hm.Likeness(x_of()))
    with pytest.raises(hm.TargetError, match="of one target, and 2 came"):
        hm.Lens(timm_vit()).logit_lens(x_of(), [1, 2])


def test_the_model_is_left_as_it_was() -> None:
    model = timm_vit(drop_rate=0.1).train()
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    hm.Lens(model).logit_lens(x_of())
    assert all(m.training for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_it_draws_itself(tmp_path: Path, cat: Path) -> None:
    preprocessing = hm.Preprocessing((SIDE, SIDE), 48, (0.5,) * 3, (0.5,) * 3)
    found = hm.Lens(timm_vit().float(), preprocessing=preprocessing).logit_lens(cat)
    assert found.save(tmp_path / "lens.png").stat().st_size > 2000
    assert "blocks.2" in found._repr_html_()
    assert repr(found).startswith("LogitLens(3 blocks of 'vit_tiny_patch16_224', 'class ")
