"""FullGrad adds up to the score, and each of its terms is a bias times its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import hookmap as hm
from hookmap.layers.trace import trace
from hookmap.methods.fullgrad import fullgrad, fullgrad_magnitude, spread
from hookmap.methods.ingredients.full_gradients import full_gradients
from networks import convnet, noise, parts, resnet18, seen, stirred
from tiny import close, explained

CLASS = 2


def efficientnet() -> nn.Module:
    """SiLU and squeeze-excitation."""
    torch.manual_seed(0)
    return stirred(torchvision.models.efficientnet_b0(weights=None))


def vit() -> nn.Module:
    torch.manual_seed(0)
    return headed(timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64))


def convnext() -> nn.Module:
    torch.manual_seed(0)
    return headed(timm.create_model("convnext_atto", pretrained=False))


def headed(model: nn.Module) -> nn.Module:
    """With a head that isn't zero, and biases."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, 0, 0.1)
    nn.init.normal_(model.get_classifier().weight, 0, 0.1)
    return model.eval()


class Functional(nn.Module):
    """Linear layers over patches; gates, constants, products and an exponential between them are no layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, 8)
        self.gate = nn.Linear(8, 8)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).mT
        tokens = tokens * torch.sigmoid(self.gate(tokens)) + 0.3
        tokens = F.gelu(self.mix(F.normalize(tokens, dim=-1))) ** 2 + torch.tanh(tokens)
        scores = self.head(tokens.mean(1).exp())
        return scores * scores.abs().sum(1, keepdim=True).sqrt() - 1


def functional() -> nn.Module:
    torch.manual_seed(0)
    return Functional().eval()


@pytest.mark.parametrize("build", [resnet18, efficientnet, vit, convnext, functional, lambda: convnet(nn.Tanh)])
def test_the_map_adds_up_to_the_score(build: Callable[[], nn.Module]) -> None:
    model, x = build(), noise(2, 3, 64, 64)
    with torch.no_grad():
        single, exact = model(x)[:, CLASS], model.double()(x.double())[:, CLASS]
    maps = explained(model, x.double(), "fullgrad", CLASS)
    assert maps.shape == (2, 64, 64)
    assert (maps.sum((1, 2)) - exact).abs().max() <= 1e-8 * exact.abs().max()
    maps = explained(model.float(), x, "fullgrad", CLASS)
    assert (maps.sum((1, 2)) - single).abs().max() <= 1e-3 * single.abs().max()


def shares(net: nn.Sequential, x: Tensor) -> dict[str, Tensor]:
    """Of one image: each layer's bias, explicit or implicit, times its gradient, channel by channel."""
    image = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(net(image)[0, CLASS], image)
    found = {"input": (g * x)[0]}
    for name in ("conv1", "norm1", "bend1", "conv2", "norm2", "bend2"):
        layer = getattr(net, name)
        if name.startswith("conv"):
            bias = layer.bias[:, None, None]
        elif name.startswith("norm"):
            bias = layer.bias - layer.weight * layer.running_mean / (layer.running_var + layer.eps).sqrt()
            bias = bias[:, None, None]
        else:
            z = parts(net, name.replace("bend", "norm"))[0](x)[0].detach().requires_grad_()
            (slope,) = torch.autograd.grad(layer(z).sum(), z)
            bias = layer(z) - slope * z
        found[name] = bias.detach() * seen(net, x, name, CLASS)[1][0]
    return found


@pytest.mark.parametrize(("bend", "count"), [(nn.ReLU, 6), (nn.SiLU, 8)])
def test_each_term_is_a_bias_times_its_gradient(bend: type[nn.Module], count: int) -> None:
    """At a stride of 1 nothing is spread: every layer's places are the pixels."""
    net, x = convnet(bend, stride=1).double(), noise(1, 3, 9, 12).double()
    signed, magnitudes = full_gradients(net, x, lambda output: output[:, CLASS][None], trace(net, x))
    expected = [*shares(net, x).values(), net.head.bias[CLASS, None].detach()]
    for found, wanted in [(signed, expected), (magnitudes, [share.abs() for share in expected])]:
        terms = [term[0] for term in found if term.abs().max() > 1e-12]
        others = [share.sum(0) for share in wanted if share.any()]
        assert len(terms) == len(others) == count
        assert all(close(one, other, 1e-12) for one, other in zip(terms, others, strict=True))


@pytest.mark.parametrize(("name", "absolute"), [("fullgrad", False), ("fullgradmagnitude", True)])
def test_the_map_is_the_sum_of_the_terms_and_nothing_is_scaled(name: str, absolute: bool) -> None:
    net, x = convnet(stride=1).double(), noise(2, 3, 9, 12).double()
    found = explained(net, x, name, CLASS)
    for b in range(2):
        total = sum((share.abs() if absolute else share).sum(0) for share in shares(net, x[b : b + 1]).values())
        head = net.head.bias[CLASS].detach()
        assert close(found[b], total + (head.abs() if absolute else head) / (9 * 12), 1e-12)


@pytest.mark.parametrize("silent", ["conv1", "norm1", "conv2", "norm2"])
def test_a_layer_whose_biases_are_zero_adds_nothing(silent: str) -> None:
    """Maps that are scaled to 0..1 one by one give it as much say as any other."""
    net, x = convnet(stride=1).double(), noise(1, 3, 9, 12).double()
    layer = getattr(net, silent)
    with torch.no_grad():
        layer.bias.zero_()
        if silent.startswith("norm"):
            layer.running_mean.zero_()
    each = shares(net, x)
    assert not each.pop(silent).any()
    total = sum(share.sum(0) for share in each.values()) + net.head.bias[CLASS].detach() / (9 * 12)
    assert close(explained(net, x, "fullgrad", CLASS)[0], total, 1e-12)


def test_maps_add_up_as_scores_do() -> None:
    net, x = convnet(nn.SiLU).double(), noise(2, 3, 16, 16).double()
    targets = [1, 4, lambda output: output[:, 1] - 10 * output[:, 4]]
    one, other, both = (explained(net, x, "fullgrad", target) for target in targets)
    assert close(both, one - 10 * other, 1e-12)


def test_every_image_and_target_of_a_batch_adds_up_on_its_own() -> None:
    net, x = convnet(nn.SiLU), noise(3, 3, 16, 24)
    together = hm.Lens(net).explain(x, target=[1, 4], method=["fullgrad", "fullgradmagnitude"])
    for i, found in enumerate(together):
        b, t, m = i // 4, i // 2 % 2, i % 2
        alone = explained(net, x[b : b + 1], ["fullgrad", "fullgradmagnitude"][m], [1, 4][t])[0]
        assert close(found.raw, alone, 1e-5)
        if m == 0:
            assert found.raw.sum().item() == pytest.approx(found.score, abs=1e-5)


def test_series_and_volumes_add_up() -> None:
    class Series(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = convnet(nn.SiLU, rank=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x[:, :, 0])

    row, clip = noise(1, 3, 1, 40).double(), noise(1, 3, 6, 8, 10).double()
    for net, x in [(Series().double(), row), (convnet(nn.SiLU, rank=3).double(), clip)]:
        found = explained(net, x, "fullgrad", CLASS)
        assert found.shape[1:] == x.shape[2:]
        assert found.sum().item() == pytest.approx(net(x)[0, CLASS].item(), rel=1e-8)


def test_an_operator_without_forward_derivative_is_named() -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * 2

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = convnet()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(Opaque.apply(x))

    with pytest.raises(hm.ModelError, match="fullgrad needs forward-mode derivatives"):
        hm.Lens(Model().eval()).explain(noise(1, 3, 16, 16), method="fullgrad")


# ------------------------------------------------------------------ pure functions


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (7, 7), (12, 16), (13, 16), (40, 50)])
def test_spreading_keeps_the_sum_and_the_place(grid: tuple[int, ...]) -> None:
    maps = noise(2, *grid).double()
    found = spread(maps, (12, 16))
    assert found.shape == (2, 12, 16)
    assert (found.sum((1, 2)) - maps.sum((1, 2))).abs().max() <= 1e-12
    if grid == (12, 16):
        assert torch.equal(found, maps)
    for y, x in [(0, 0), (grid[0] // 2, grid[1] - 1)]:
        one = torch.zeros(1, *grid, dtype=torch.float64)
        one[0, y, x] = 1
        laid = spread(one, (12, 16))[0]
        assert laid.min() >= 0
        for axis, (at, cells, pixels) in enumerate([(y, grid[0], 12), (x, grid[1], 16)]):
            centre = (laid.sum(1 - axis) * torch.arange(pixels)).sum() + 0.5
            assert abs(centre - (at + 0.5) * pixels / cells) <= max(1, pixels / cells) / 2


def test_terms_without_places_are_spread_evenly() -> None:
    image, places = torch.zeros(1, 3, 4, 5), noise(2, 4, 5)
    found = fullgrad(image, [places, torch.tensor([20.0, -40.0]), torch.ones(2, 1, 1)])
    assert torch.allclose(found, places + torch.tensor([1.05, -1.95]).reshape(2, 1, 1))
    assert torch.equal(fullgrad_magnitude(image, [places.abs()]), places.abs())
