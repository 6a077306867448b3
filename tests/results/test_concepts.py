"""Concepts from images to page: shared by images, named by the head, laid back on the photo."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

import hookmap as hm
from hookmap.methods.factorization import nmf, pca
from hookmap.render.concepts import PALETTE
from networks import convnet, noise, stirred
from tiny import output_of, sure, with_changed


class Colors(nn.Module):
    """A layer that gives the input itself, and a head that names its three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            self.see.weight.copy_(torch.eye(3)[..., None, None])
            self.head.weight.copy_(5 * torch.eye(3))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.see(x).mean((2, 3)))


def colors() -> hm.Lens:
    return hm.Lens(Colors(), labels=["red, crimson", "green", "blue"])


def patches() -> Tensor:
    """Two images of pure and faint patches: (2, 3, 8, 8)."""
    x = torch.zeros(2, 3, 8, 8)
    x[0, 0, :4] = 1.0
    x[0, 1, 4:, :4] = 2.0
    x[1, 1, :2] = 0.5
    x[1, 2, 2:] = 3.0
    return x


def test_known_parts_are_found_where_they_are_and_named() -> None:
    x = patches()
    found = colors().concepts(x, layer="see", concepts=3)
    assert len(found) == 3
    assert found.vectors.shape == (3, 3)
    for concept, maps in zip(found, torch.stack(found.memberships, 1), strict=True):
        channel = ["red", "green", "blue"].index(concept.labels[0])
        assert concept.classes[0] == hm.Class(channel, ["red, crimson", "green", "blue"][channel])
        strongest = x[:, channel].max()
        assert torch.allclose(concept.vector, strongest * torch.eye(3)[channel], atol=1e-3)
        assert torch.allclose(maps, x[:, channel] / strongest, atol=1e-3)
        share = x[:, channel].square().sum() / x.square().sum()
        assert concept.share == pytest.approx(float(share), abs=1e-3)
    assert [concept.labels[0] for concept in found] == ["blue", "green", "red"]
    assert found.explained == pytest.approx(1, abs=1e-3)


def test_names_are_what_the_head_says_of_the_vector() -> None:
    """Closed form for average pooling and a linear layer: the vector at every place is pooled to itself."""
    net = sure(convnet(classes=6))
    found = hm.Lens(net).concepts(noise(3, 3, 24, 32), layer="bend2", concepts=4, top=3)
    expected = net.head(found.vectors).softmax(1).topk(3)
    for j, concept in enumerate(found):
        assert [one.index for one in concept.classes] == expected.indices[j].tolist()
        assert concept.probabilities == pytest.approx(expected.values[j].tolist(), abs=1e-5)


def test_names_through_a_tail_that_isnt_linear() -> None:
    net, x = sure(convnet(classes=6)), noise(2, 3, 24, 32)
    found = hm.Lens(net).concepts(x, layer="norm1", concepts=3, top=2)
    for concept in found:
        output = with_changed(net, "norm1", x[:1], lambda a, v=concept.vector: v[None, :, None, None].expand_as(a))
        best = output.softmax(1).topk(2)
        assert [one.index for one in concept.classes] == best.indices[0].tolist()
        assert concept.probabilities == pytest.approx(best.values[0].tolist(), abs=1e-5)


def test_what_passes_the_layer_by_is_that_of_the_image_where_the_concept_is_strongest() -> None:
    net = sure(stirred(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=5)))
    x = noise(3, 3, 64, 64)
    lens = hm.Lens(net)
    found = lens.concepts(x, layer="blocks.1.norm1", concepts=3)
    strongest = torch.stack([maps.flatten(1).amax(1) for maps in found.memberships]).argmax(0)
    for j, concept in enumerate(found):

        def swap(tokens: Tensor, vector: Tensor = concept.vector) -> Tensor:
            return torch.cat([tokens[:, :1], vector.expand(1, 16, -1)], 1)

        expected = with_changed(net, "blocks.1.norm1", x[strongest[j]][None], swap).softmax(1)[0]
        assert concept.classes[0].index == int(expected.argmax())
        assert concept.probabilities[0] == pytest.approx(float(expected.max()), abs=1e-4)


def test_images_share_the_concepts_whatever_their_order_and_batches() -> None:
    net, x = convnet(), noise(5, 3, 24, 32)
    lens = hm.Lens(net)
    plain = lens.concepts(x, layer="bend1", concepts=4)
    order = [3, 0, 4, 1, 2]
    other = lens.concepts(x[order], layer="bend1", concepts=4, batch_size=2)
    cosine = nn.functional.normalize(plain.vectors) @ nn.functional.normalize(other.vectors).T
    same = cosine.argmax(1)
    assert sorted(same.tolist()) == [0, 1, 2, 3]
    assert torch.allclose(plain.vectors, other.vectors[same], atol=1e-3)
    for i, image in enumerate(order):
        assert torch.allclose(plain.memberships[image], other.memberships[i][same], atol=1e-3)
    rows = output_of(net, "bend1", x).movedim(1, -1).flatten(0, 2)
    assert torch.allclose(nmf(rows, 4).concepts, plain.vectors, atol=1e-4)


def test_pca_is_that_of_all_places() -> None:
    net, x = convnet(), noise(3, 3, 24, 32)
    found = hm.Lens(net).concepts(x, layer="norm1", concepts=4, method="pca")
    memberships, directions, shares = pca(output_of(net, "norm1", x).movedim(1, -1).flatten(0, 2), 4)
    assert torch.allclose(found.vectors, directions, atol=1e-5)
    assert torch.allclose(torch.stack(found.memberships).movedim(1, -1).flatten(0, 2), memberships, atol=1e-4)
    assert [concept.share for concept in found] == pytest.approx(shares.tolist(), abs=1e-5)
    assert not any(concept.classes for concept in found)


def test_layers_with_negative_values_give_signed_concepts_and_positive_memberships() -> None:
    net, x = convnet(), noise(3, 3, 24, 32)
    activation = output_of(net, "norm1", x)
    assert activation.min() < -1
    found = hm.Lens(net).concepts(x, layer="norm1", concepts=6)
    assert found.vectors.min() < 0
    assert all(maps.min() >= 0 for maps in found.memberships)
    again = torch.stack([torch.einsum("khw,kc->chw", maps, found.vectors) for maps in found.memberships])
    left = float((activation - again).square().sum() / activation.square().sum())
    # |x - y|^2 <= 2 |x+ - y+|^2 + 2 |x- - y-|^2
    assert left <= 2 * (1 - found.explained) + 1e-4
    rows = activation.movedim(1, -1).flatten(0, 2)
    w, h, _ = nmf(rows.clamp(min=0), 6)
    assert left < 0.8 * float((rows - w @ h).square().sum() / rows.square().sum())


def test_seeds() -> None:
    lens, x = hm.Lens(convnet()), noise(2, 3, 24, 32)
    runs = [lens.concepts(x, layer="bend1", concepts=4, seed=seed).vectors for seed in (None, None, 7, 7, 8)]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[2], runs[3])
    assert not torch.equal(runs[2], runs[4])


def test_images_of_several_sizes() -> None:
    found = hm.Lens(convnet()).concepts([noise(3, 24, 32), noise(3, 40, 16)], layer="bend1", concepts=3)
    assert [tuple(maps.shape) for maps in found.memberships] == [(3, 12, 16), (3, 20, 8)]
    assert [tuple(found.map(i).shape) for i in (0, 1)] == [(3, 24, 32), (3, 40, 16)]
    assert max(float(maps.max()) for maps in found.memberships) == pytest.approx(1)
    assert found.page().width > 600


def test_clips_and_volumes() -> None:
    found = hm.Lens(convnet(rank=3)).concepts(noise(2, 3, 8, 16, 16), layer="bend1", concepts=3)
    assert found.memberships[0].shape == (3, 4, 8, 8)
    assert found.map(1).shape == (3, 4, 16, 16)
    assert found.overlay(1).size == (320, 320)
    assert found[0].classes


def test_sequences() -> None:
    net, x = sure(convnet(rank=1)), noise(2, 3, 40)
    found = hm.Lens(net).concepts(x, "bend2", 3)
    assert found.memberships[0].shape == (3, 20)
    assert found.map(0).shape == (3, found.pictures[0].height, 40)
    assert [c.classes[0].index for c in found] == net.head(found.vectors).argmax(1).tolist()
    assert found.page().height > 200


def test_half_precision() -> None:
    net, x = sure(convnet()), noise(2, 3, 24, 32)
    full = hm.Lens(net).concepts(x, layer="bend2", concepts=2)
    half = hm.Lens(net.bfloat16()).concepts(x, layer="bend2", concepts=2)
    assert half.vectors.dtype == torch.float32
    assert torch.allclose(full.vectors, half.vectors, atol=0.1)
    assert [c.classes[0] for c in full] == [c.classes[0] for c in half]


def test_outputs_that_arent_classes_give_concepts_without_names() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    found = hm.Lens(net).concepts(noise(1, 3, 16, 16), layer="1", concepts=3)
    assert all(concept.classes == () and concept.title == "" for concept in found)
    assert found.page().width > 600
    assert all(not concept.classes for concept in hm.Lens(convnet()).concepts(noise(1, 3, 16, 16), top=0, concepts=2))


class Mixed(nn.Module):
    """Tokens of 4x4 patches, with the sequence first, and the head reads their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.mix = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.patches(x).flatten(2).permute(2, 0, 1)).mean(0))


class Framed(Mixed):
    """The same of clips, whose frames are samples of their own."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mix(self.patches(x.movedim(2, 1).flatten(0, 1)).flatten(2).mT)
        return self.head(tokens.unflatten(0, (len(x), -1)).mean((1, 2)))


def test_layers_that_hold_the_sequence_first_give_concepts_with_names() -> None:
    net = sure(Mixed())
    found = hm.Lens(net).concepts(noise(1, 3, 16, 16), layer="mix", concepts=2)
    assert found.memberships[0].shape == (2, 4, 4)
    assert [concept.classes[0].index for concept in found] == net.head(found.vectors).argmax(1).tolist()


def test_layers_that_cant_be_replayed_give_concepts_without_names_and_a_warning() -> None:
    lens = hm.Lens(Framed(), layouts={"mix": hm.Layout("tokens", (2, 4, 4), frames="batch")})
    with pytest.warns(hm.HookmapWarning, match=r"no names: a layer with the layout .* can't be replayed"):
        found = lens.concepts(noise(1, 3, 2, 16, 16), layer="mix", concepts=2)
    assert found.memberships[0].shape == (2, 2, 4, 4)
    assert not found[0].classes


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"concepts": 0}, "0 concepts were asked for; expected 1 or more"),
        ({"concepts": 9, "layer": "bend2"}, "at most 8"),
        ({"method": "ica"}, "no factorisation 'ica'; use 'nmf' or 'pca'"),
        ({"layer": "bend*"}, "this is about one layer, and 'bend\\*' names 2: bend1, bend2"),
        ({"layer": "bend3"}, "did you mean"),
        ({"layer": "head"}, "can't be read as a grid"),
    ],
)
def test_what_cant_be_done_is_said(how: dict[str, Any], sentence: str) -> None:
    net = convnet()
    with pytest.raises(hm.HookmapError, match=sentence):
        hm.Lens(net).concepts(noise(1, 3, 24, 32), **how)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_dead_layer_is_said() -> None:
    net = convnet()
    with torch.no_grad():
        net.norm2.bias.fill_(-100)
    with pytest.raises(hm.HookmapError, match="zero everywhere, so that it has no concepts; pass another layer"):
        hm.Lens(net).concepts(noise(1, 3, 24, 32), layer="bend2")


def test_the_model_is_left_as_it_came() -> None:
    net = convnet().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    hm.Lens(net).concepts(noise(2, 3, 24, 32), concepts=2)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_real_photos(lens: hm.Lens, cat: Path, coffee: Path) -> None:
    found = lens.concepts([cat, coffee], concepts=4)
    assert found.layer == "bn2"
    assert 0.3 < found.explained < 1
    assert {"espresso"} < {concept.labels[0] for concept in found}
    drink = next(j for j, concept in enumerate(found) if concept.labels[0] == "espresso")
    assert found.memberships[1][drink].max() > 2 * found.memberships[0][drink].max()
    maps = found.map(1)
    assert maps.shape == (4, 400, 600)
    left, top, _, _ = lens.explain(coffee)[0].geometry.seen
    assert not maps[:, : int(top)].any()
    assert not maps[:, :, : int(left)].any()
    row, column = divmod(int(maps[drink].argmax()), 600)
    assert 80 < row < 205  # the drink in the cup
    assert 205 < column < 380
    # A concept's class is a target.
    assert lens.explain(coffee, target=found[drink].classes[0])[0].target == "espresso"


def test_the_page_and_the_overlay(lens: hm.Lens, cat: Path, coffee: Path, tmp_path: Path) -> None:
    one = lens.concepts(coffee, concepts=5)
    assert one.overlay().size == (600, 400)
    assert len(one) == len(list(one)) == len(one[:5]) == 5
    pixels = np.asarray(one.overlay()).astype(int)
    row, column = divmod(int(one.map()[0].argmax()), 600)
    assert np.abs(pixels[row, column] - PALETTE[0]).max() < 70  # the strongest place has the concept's colour
    outside = pixels[2, 2]
    assert np.ptp(outside) < 20  # what the model didn't see is grey
    path = one.save(tmp_path / "new" / "page.png")
    with Image.open(path) as page:
        assert page.size == one.page().size
        assert page.width > 1000
    assert one._repr_html_().count("<tr>") == 6
    assert repr(one).startswith("Concepts([\n  Concept(33% espresso 100%")
    both = lens.concepts([cat, coffee], concepts=3, method="pca")
    assert both.page().height > 400
    assert both.overlay(-1).size == (600, 400)
    with pytest.raises(hm.HookmapError, match="image 2 doesn't exist; there are 2, counted from 0"):
        both.map(2)
    with pytest.raises(hm.HookmapError, match="image format"):
        one.save(tmp_path / "page.xyz")


@pytest.mark.parametrize(
    ("count", "concepts", "method"), [(1, 12, "nmf"), (5, 2, "pca"), (14, 3, "nmf"), (2, 1, "nmf")]
)
def test_pages_of_any_number_of_images_and_concepts(count: int, concepts: int, method: Any) -> None:
    net = stirred(nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    found = hm.Lens(net).concepts(noise(count, 3, 24, 40), layer="1", concepts=concepts, method=method)
    page = np.asarray(found.page())
    assert page.std() > 10
    assert page.shape[0] > max(70 * concepts, 100 * -(-count // 3))


def test_the_palette_is_told_apart_by_colour_blind_eyes() -> None:
    # Machado, Oliveira and Fernandes 2009 at full severity; distances in OKLab (Ottosson 2020).
    eyes = {
        "normal": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    to_cones = [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
    to_lab = [
        [0.2104543, 0.7936178, -0.0040720],
        [1.9779985, -2.4285922, 0.4505937],
        [0.0259040, 0.7827718, -0.8086758],
    ]

    def seen(color: tuple[int, int, int], eye: Any) -> Any:
        srgb = np.array(color) / 255
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(np.array(eye) @ linear, 0, 1))

    for count, distance in ((5, 0.15), (8, 0.11), (10, 0.08)):
        for one, other in itertools.combinations(PALETTE[:count], 2):
            assert min(np.linalg.norm(seen(one, eye) - seen(other, eye)) for eye in eyes.values()) > distance


def test_on_the_command_line(hookmap, cat: Path, coffee: Path, tmp_path: Path) -> None:
    result = hookmap("concepts", cat, coffee, "-o", "out/concepts.png", "-k", "3")
    assert result.code == 0
    assert "espresso 100%" in result.out
    assert "cat, coffee at bn2" in " ".join(result.out.split())
    with Image.open(tmp_path / "out" / "concepts.png") as image:
        assert image.width > 800
    result = hookmap("concepts", cat, "--method", "ica")
    assert result.code == 1
    assert result.err == "hookmap: there's no factorisation 'ica'; use 'nmf' or 'pca'\n"
    assert not (tmp_path / "cat_concepts.png").exists()
