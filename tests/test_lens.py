"""The whole road: images in, maps on the photo out, on real networks."""

from __future__ import annotations

import copy
import pickle
import re
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

import hookmap as hm
from hookmap._warnings import hearing


def test_the_default_network_knows_real_photos(lens: hm.Lens, cat: Path, coffee: Path) -> None:
    seen = [[p.label for p in top] for top in lens.predict([cat, coffee], top=3)]
    assert any("cat" in label or "tabby" in label for label in seen[0])
    assert seen[1][0] == "espresso"
    best = lens.predict(coffee)[0]
    assert best[0].probability > 0.9
    assert [p.score for p in best] == sorted((p.score for p in best), reverse=True)


def test_the_heatmap_of_the_coffee_lies_on_the_cup(lens: hm.Lens, coffee: Path) -> None:
    heat = lens.explain(coffee, target="espresso")[0].map
    assert heat.shape == (400, 600)
    drink = heat[80:205, 205:380].sum() / heat.sum()
    share = 125 * 175 / (350 * 350)  # of what the centre crop lets the model see
    assert drink > 1.8 * share
    assert heat.argmax() // 600 in range(80, 205)
    assert heat.argmax() % 600 in range(205, 380)


def test_a_heatmap_holds_what_it_is_of(lens: hm.Lens, cat: Path) -> None:
    explanation = lens.explain(cat)
    (heatmap,) = explanation
    prediction = lens.predict(cat)[0][0]
    assert (heatmap.index, heatmap.target) == (prediction.index, prediction.label)
    assert heatmap.score == pytest.approx(prediction.score, abs=1e-4)
    assert heatmap.probability == pytest.approx(prediction.probability, abs=1e-5)
    assert heatmap.raw.shape == (7, 7)
    against = lens.explain(cat, target="espresso")[0]
    assert against.raw.min() < 0 <= against.values.min()
    assert heatmap.map.shape == (300, 451)
    assert (heatmap.layer, heatmap.method.name, heatmap.picture.name) == ("bn2", "gradcam", "cat")
    left, top, _, _ = heatmap.geometry.seen
    assert not heatmap.map[: int(top)].any()
    assert not heatmap.map[:, : int(left)].any()


def test_results_hold_the_input_as_it_was(lens: hm.Lens) -> None:
    x = torch.rand(1, 3, 224, 224)
    heatmap = lens.explain(x)[0]
    known = lens.explain(x.clone())[0].picture.pixels
    there = pickle.loads(pickle.dumps(heatmap))
    x.zero_()
    assert np.array_equal(heatmap.picture.pixels, known)
    assert np.array_equal(there.picture.pixels, known)
    assert torch.equal(lens.again(heatmap).raw, heatmap.raw)


def test_at_the_last_layer_the_map_adds_up_to_the_score(lens: hm.Lens, cat: Path) -> None:
    """Closed form: before average pooling and a linear head, the signed Grad-CAM map sums to logit - bias."""
    heatmap = lens.explain(cat)[0]
    bias = lens.model.classifier.bias[heatmap.index].item()
    assert heatmap.raw.sum().item() == pytest.approx(heatmap.score - bias, rel=1e-4)


@pytest.mark.filterwarnings("ignore:Grad-CAM averages:hookmap.HookmapWarning")
def test_one_pass_gives_every_combination_as_single_calls_do(lens: hm.Lens, cat: Path, coffee: Path) -> None:
    both = lens.explain([cat, coffee], target=["predicted", "espresso", 281], layer=["bn2", "blocks.5"])
    assert len(both) == 2 * 3 * 2
    place = 0
    for photo in (cat, coffee):
        for target in ("predicted", "espresso", 281):
            for layer in ("bn2", "blocks.5"):
                single = lens.explain(photo, target=target, layer=layer)[0]
                assert (both[place].target, both[place].layer) == (single.target, layer)
                assert torch.allclose(both[place].raw, single.raw, atol=1e-5)
                place += 1


def test_images_of_many_sizes_in_one_call_are_those_alone(lens: hm.Lens, cat: Path, coffee: Path) -> None:
    small = Image.open(cat).resize((90, 200))
    together = lens.explain([cat, small, coffee], batch_size=2)
    assert [h.map.shape for h in together] == [(300, 451), (200, 90), (400, 600)]
    assert torch.allclose(together[1].raw, lens.explain(small)[0].raw, atol=1e-5)


def test_a_function_is_a_target(lens: hm.Lens, cat: Path) -> None:
    def tiger_cat_not_tabby(output: torch.Tensor) -> torch.Tensor:
        return output[:, 282] - output[:, 281]

    contrast = lens.explain(cat, target=tiger_cat_not_tabby)[0]
    one, other = lens.explain(cat, target=[282, 281])
    assert contrast.target == "tiger_cat_not_tabby"
    assert contrast.index is contrast.probability is None
    assert torch.allclose(contrast.raw, one.raw - other.raw, atol=1e-4)
    with pytest.raises(hm.TargetError, match="expected one score per image"):
        lens.explain(cat, target=lambda output: output)


def test_models_and_tensors_of_ones_own(cat: Path) -> None:
    model = torchvision.models.resnet18(weights=None).train()
    flags = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(3, 3, 96, 128)
    found = hm.Lens(model).explain(x)
    assert [h.raw.shape for h in found] == [(3, 4)] * 3
    assert found[0].map.shape == (96, 128)
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    with (
        pytest.warns(hm.HookmapWarning, match="ImageNet's usual way is assumed"),
        pytest.warns(hm.HookmapWarning, match="untrained classes have no names; pass labels="),
    ):
        assumed = hm.Lens(model).explain(cat)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", hm.HookmapWarning)
        known = torchvision.models.ResNet18_Weights.DEFAULT
        told = hm.Lens(model, preprocessing=known.transforms(), labels=known.meta["categories"]).explain(cat)[0]
    assert torch.equal(assumed.raw, told.raw)


def test_a_module_of_nobodys_library_asks_for_preprocessing(cat: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    with pytest.raises(hm.ModelError, match="pass preprocessing="):
        hm.Lens(model).explain(cat)
    told = hm.Lens(model, preprocessing=hm.Preprocessing(size=(64, 64), resize=(64, 64)), labels=["a", "b", "c"])
    heatmap = told.explain(cat, target="b")[0]
    assert (heatmap.target, heatmap.layer, heatmap.map.shape) == ("b", "1", (300, 451))


def test_wrapped_models_are_unwrapped() -> None:
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.randn(1, 3, 64, 64)
    plain = hm.Lens(model).explain(x, target=3).raw
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        assert torch.equal(hm.Lens(wrapped).explain(x, target=3).raw, plain)


@pytest.mark.filterwarnings("ignore:.* untrained classes have no names:hookmap.HookmapWarning")
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224"])
def test_token_models(name: str, cat: Path) -> None:
    model = timm.create_model(name)
    nn.init.normal_(model.get_classifier().weight)  # timm starts some heads as zeros
    heatmap = hm.Lens(model).explain(cat)[0]
    assert heatmap.raw.shape[0] == heatmap.raw.shape[1] in (7, 14)
    assert heatmap.raw.std() > 0
    assert heatmap.map.shape == (300, 451)


def test_video_clips() -> None:
    clip = torch.randn(1, 3, 8, 112, 112)
    heatmap = hm.Lens(torchvision.models.video.r3d_18(weights=None)).explain(clip, layer="layer3", method="layercam")[0]
    assert heatmap.raw.shape == (2, 14, 14)
    assert heatmap.map.shape == (2, 112, 112)
    assert heatmap.overlay().size == (336, 336)  # drawn at a size for people


def test_a_backbone_that_the_model_runs_under_no_grad() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True))
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                a = self.backbone(x)
            return self.head(a.mean((2, 3)))

    model, x = Frozen(), torch.rand(1, 3, 17, 17)
    heatmap = hm.Lens(model).explain(x, target=1, layer="backbone")[0]
    a = model.backbone(x)[0].detach()
    expected = (model.head.weight[1].detach()[:, None, None] / a[0].numel() * a).sum(0)
    assert torch.allclose(heatmap.raw, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:the heatmap of 'class 1' on 'input' by occlusion is zero:hookmap.HookmapWarning")
@pytest.mark.parametrize("picture_counts", [False, True])
def test_a_score_without_a_graph_is_said_and_can_be_masked(picture_counts: bool) -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.bias = nn.Conv2d(3, 4, 3), nn.Parameter(torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = torch.from_numpy(self.features(x).mean((2, 3)).detach().numpy())
            return seen if picture_counts else self.bias.expand(len(x), 4)

    lens, x = hm.Lens(Apart()), torch.rand(1, 3, 16, 16)
    for how in ({}, {"layer": "features"}):
        with pytest.raises(hm.DisconnectedError, match="no gradient leads from the score to the picture.*such as rise"):
            lens.explain(x, 1, **how)
    (heatmap,) = lens.explain(x, 1, method="occlusion", progress=False)
    assert bool(heatmap.raw.any()) == picture_counts


def test_half_precision_and_frozen_parameters() -> None:
    model = torchvision.models.resnet18(weights=None).eval().requires_grad_(False)
    x = torch.randn(1, 3, 64, 64)
    full = hm.Lens(model).explain(x, target=3).raw
    half = hm.Lens(model.bfloat16()).explain(x, target=3).raw
    assert half.dtype == torch.float32  # products of gradients need the range, whatever the model runs in
    correlation = np.corrcoef(full.flatten(), half.float().flatten())[0, 1]
    assert correlation > 0.95


def test_an_all_negative_map_warns_and_draws_no_nan() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[4].weight.fill_(-1)
    with pytest.warns(hm.HookmapWarning, match="zero everywhere"):
        heatmap = hm.Lens(model).explain(torch.rand(1, 3, 16, 16), target=0)[0]
    assert heatmap.raw.max() <= 0
    assert np.asarray(heatmap.overlay()).shape == (320, 320, 3)


def test_the_model_is_unchanged_after_an_error_midway(lens: hm.Lens, cat: Path) -> None:
    before = {k: v.clone() for k, v in lens.model.state_dict().items()}
    for wrong in (
        {"layer": "nowhere"},
        {"target": 5000},
        {"target": lambda _: 1 / 0},
        {"layer": "classifier"},
    ):
        with pytest.raises((hm.HookmapError, ZeroDivisionError)):
            lens.explain(cat, **wrong)
    assert all(torch.equal(v, before[k]) for k, v in lens.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in lens.model.modules())
    assert all(p.grad is None for p in lens.model.parameters())
    assert torch.is_grad_enabled()


def test_threads_share_a_lens(lens: hm.Lens, cat: Path, coffee: Path) -> None:
    photos = [cat, coffee]
    alone = [lens.explain(photo).raw for photo in photos]
    wrong: list[int] = []

    def look(i: int) -> None:
        for _ in range(4):
            if not torch.allclose(lens.explain(photos[i]).raw, alone[i], atol=1e-4):
                wrong.append(i)

    threads = [threading.Thread(target=look, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_bad_tensors_and_settings_are_said(lens: hm.Lens) -> None:
    with pytest.raises(hm.ImageError, match="holds NaN"):
        lens.explain(torch.full((1, 3, 224, 224), float("nan")))
    with pytest.raises(hm.ImageError, match="expected \\(C, H, W\\)"):
        lens.explain(torch.rand(5, 5))
    with pytest.raises(hm.ImageError, match="in two calls"):
        lens.explain([torch.rand(3, 224, 224), "cat.jpg"])
    with pytest.raises(hm.ModelError, match="failed on an input of shape \\(1, 1, 224, 224\\)"):
        lens.explain(torch.rand(1, 1, 224, 224))
    sizes = lens.explain([torch.rand(3, 224, 224), torch.rand(3, 192, 256)], target=3)
    assert [h.map.shape for h in sizes] == [(224, 224), (192, 256)]
    with pytest.raises(hm.ModelError, match="device 'warp' can't be used"):
        hm.Lens(device="warp")
    with pytest.raises(hm.HookmapError, match="no method 'gradcan'; did you mean gradcam"):
        lens.explain(torch.rand(1, 3, 224, 224), method="gradcan")


def test_saving(lens: hm.Lens, cat: Path, tmp_path: Path) -> None:
    path = lens.explain(cat).save(tmp_path / "new" / "cam.jpg", colormap="jet", opacity=0.3)
    with Image.open(path) as image:
        assert image.size == (451, 300)
    sheet = lens.explain(cat, target=[281, 282]).overlay()
    assert sheet.width > 900
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(hm.HookmapError, match="can't be written"):
        lens.explain(cat).save(tmp_path / "file" / "cam.png")
    with pytest.raises(hm.HookmapError, match="image format"):
        lens.explain(cat).save(tmp_path / "cam.xyz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "new"]
    assert "data:image/png;base64,iVBOR" in lens.explain(cat)._repr_html_()
    assert len(lens.explain(cat)[0].figure().axes) == 3


def test_what_data_sets_and_other_libraries_write_is_understood(lens: hm.Lens, cat: Path) -> None:
    plain = lens.explain(cat)[0]
    assert torch.equal(lens.explain(cat, target=None)[0].raw, plain.raw)
    for index in (np.int64(282), torch.tensor(282), torch.tensor([282]), np.array([282])):
        assert lens.explain(cat, target=index)[0].index == 282
    assert lens.explain(cat, method="GradCAMPlusPlus")[0].method.name == "gradcampp"
    assert lens.explain(cat, method="GradCAMElementWise")[0].method.name == "elementwise"
    with pytest.raises(hm.LayerError, match="a layer was given as int -1; expected a name"):
        lens.explain(cat, layer=-1)


def test_warnings_point_at_the_users_line() -> None:
    """Whether a map is dead, isn't finite, or something was assumed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    x, broken = torch.randn(1, 3, 16, 16), copy.deepcopy(model)
    nn.init.constant_(broken[0].bias[:1].detach(), torch.nan)
    asked = {
        "is zero everywhere": lambda: hm.Lens(model).explain(x, 0, "1", lambda activation: activation[:, 0] * 0),
        "is read as the logit of yes or no": lambda: hm.Lens(model).explain({"input": x}),
        "isn't finite: the weights, or what layer '1' gives, hold NaN": lambda: hm.Lens(broken).explain(x, 0, "1"),
    }
    for sentence, ask in asked.items():
        with pytest.warns(hm.HookmapWarning) as caught:
            ask()
        assert any(sentence in str(one.message) for one in caught), [str(one.message) for one in caught]
        assert {one.filename for one in caught} == {__file__}


def test_what_many_maps_have_in_common_is_warned_of_once() -> None:
    """A thousand dark photos were a thousand warnings."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    lens, x = hm.Lens(model), torch.randn(5, 3, 16, 16)

    def nothing(activation: Tensor) -> Tensor:
        return activation[:, 0] * torch.tensor([0.0, 1, 0, 0, 0, 1, 0, 0, 0, 0])[: len(activation), None, None]

    with hearing() as said:
        lens.explain(x, [0, 1], ["0", "1"], nothing, progress=False)
    dead = "the heatmap of 'class 0' on 'input 0' by nothing is zero everywhere: nothing in layer '{}' speaks for it"
    assert [sentence.partition(";")[0] for sentence in said] == [dead.format(layer) for layer in "01"]
    assert all(sentence.endswith("or pass another layer (so it is with 7 others)") for sentence in said)
    with hearing() as said:
        list(lens.stream(x, 0, "1", nothing, progress=False))
    assert [re.findall("'input .'", sentence) for sentence in said] == [[f"'input {i}'"] for i in (0, 2, 3, 4)]
