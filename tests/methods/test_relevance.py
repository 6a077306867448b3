"""Methods of relevance: what they show adds up, and says so where it doesn't."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

import hookmap as hm
from hookmap.relevance import LRP, relevance
from networks import convnet, noise
from tiny import explained, images, tiny

METHODS = ["lrp", "attnlrp", "lrppixels"]


@pytest.mark.parametrize("method", METHODS[:2])
def test_a_map_is_the_relevance_of_the_layer_summed_over_channels(method: str) -> None:
    net, x = tiny(), images(2)
    found = torch.stack([explained(net, x[b : b + 1], method)[0] for b in range(2)])
    assert torch.allclose(found, explained(net, x, method), atol=1e-12)
    # Without attention, AttnLRP is LRP.
    expected = relevance(net, x, lambda output: output[:, 2], LRP, ["bend1"])
    assert torch.allclose(found, expected.layers["bend1"][0].sum(1), atol=1e-12)


def test_what_reaches_a_rectified_layer_without_biases_after_it_is_the_score() -> None:
    net = convnet().double()
    with torch.no_grad():
        for name in ("conv2", "norm2", "head"):
            getattr(net, name).bias.zero_()
        net.norm2.running_mean.zero_()
    for method in METHODS[:2]:
        (heatmap,) = hm.Lens(net).explain(noise(1, 3, 16, 16).double(), 2, "bend1", method)
        assert heatmap.raw.sum().item() == pytest.approx(heatmap.score, rel=1e-10)


def test_targets_and_layers_are_taken_in_one_walk() -> None:
    net, x = tiny(), images(2)
    together = hm.Lens(net).explain(x, target=[1, 3], layer=["bend1", "bend2"], method=["lrp", "lrppixels"])
    alone = hm.Lens(net).explain(x[1:], target=3, layer="bend1", method="lrp")[0]
    same = [h for h in together if h.layer == "bend1" and h.index == 3 and h.method.name == "lrp"][1]
    assert torch.allclose(alone.raw, same.raw, atol=1e-12)


def test_a_vision_transformer_is_explained_at_its_default_layer_and_patch_by_patch_on_its_pixels() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3).eval().requires_grad_(False)
    found = hm.Lens(model).explain(noise(1, 3, 64, 64), target=3, method=METHODS)
    by_name = {heatmap.method.name: heatmap for heatmap in found}
    assert by_name["lrp"].raw.shape == (4, 4)
    pixels = by_name["lrppixels"].raw
    assert pixels.shape == (64, 64)
    patches = pixels.reshape(4, 16, 4, 16)
    assert torch.allclose(patches, patches.mean((1, 3), keepdim=True), rtol=1e-4, atol=1e-9)
    assert not any(heatmap.caution for heatmap in found)
    assert not any(p.requires_grad for p in model.parameters())


def test_what_does_not_add_up_is_told_with_the_node() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = convnet()

        def forward(self, x: Tensor) -> Tensor:
            return self.net[3:](self.net[:3]((x - 0.5) / 0.2) + torch.full((6, 1, 1), 0.5))

    # What is added to the pixels doesn't matter to what is made of them.
    with pytest.warns(hm.HookmapWarning, match=r"look at Add behind 'net.norm1', which adds a constant"):
        (heatmap,) = hm.Lens(Shifted().eval()).explain(noise(1, 3, 16, 16), target=2, method="lrp")
    assert heatmap.caution.startswith("incomplete: ")


def test_half_precision_and_a_second_call_give_about_the_same() -> None:
    net, x = tiny(torch.float32), images(dtype=torch.float32)
    full = explained(net, x, "lrp")
    assert torch.equal(full, explained(net, x, "lrp"))
    (half,) = hm.Lens(net, precision="bf16").explain(x, 2, "bend1", "lrp")
    assert not half.caution
    assert (half.raw - full[0]).abs().max() <= 0.1 * full.abs().max()
