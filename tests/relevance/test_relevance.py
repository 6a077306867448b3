"""Whole models: the account closes, zennit agrees, and the user's model is left as it was."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
import zennit.composites
import zennit.rules
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Composite as Peer
from zennit.torchvision import ResNetCanonizer
from zennit.types import Activation, AvgPool, Linear

import hookmap as hm
from detectors import detector, picture
from hookmap.hooks.preserve import preserved
from hookmap.relevance import ATTNLRP, EPSILON_PLUS_FLAT, LRP, ZERO, Composite, Epsilon, Gamma, Relevance, relevance
from networks import convnet, noise, resnet18

CLASS = 3


def biased(model: nn.Module) -> nn.Module:
    """With biases that do something, in float64."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                module.bias.add_(torch.randn(module.bias.shape, generator=generator), alpha=0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
    return model.eval().double()


def of(model: nn.Module, x: Tensor, composite: Composite = ZERO, *layers: str) -> Relevance:
    return relevance(model, x, lambda output: output[:, CLASS], composite, layers)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit_tiny_patch16_224": lambda: timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3),
    "vit reg": lambda: timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, depth=2),
    "swin": lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(2, 2)),
    "beit": lambda: timm.create_model("beit_base_patch16_224", img_size=64, depth=2),
    "convnext v2": lambda: timm.create_model("convnextv2_atto"),
    "mobilenet": lambda: timm.create_model("mobilenetv3_small_050"),
    "efficientnet": lambda: timm.create_model("tf_efficientnet_lite0"),
    "torchvision vit": lambda: torchvision.models.VisionTransformer(64, 16, 2, 3, 48, 96),
    "xcit": lambda: timm.create_model("xcit_nano_12_p8_224", img_size=64),
    "densenet": lambda: torchvision.models.densenet121(),
    "vgg": lambda: torchvision.models.vgg11(),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_account_closes(name: str) -> None:
    torch.manual_seed(0)
    model, x = biased(MODELS[name]()), noise(1, 3, 56 if name == "vit reg" else 64, 56 if name == "vit reg" else 64)
    for composite in (ZERO, LRP, ATTNLRP):
        account = of(model, x.double(), composite).accounts[0]
        assert account.error <= 1e-10, f"{composite.name}: {account}"
    account = of(model.float(), x).accounts[0]
    assert account.error <= 1e-4


def test_every_layer_has_all_of_it_but_what_parameters_after_it_have() -> None:
    model, x = biased(convnet(nn.SiLU)), noise(2, 3, 16, 16).double()
    layers = [name for name, _ in model.named_children()]
    for composite in (ZERO, LRP):
        found = of(model, x, composite, *layers)
        sums = [found.layers[name].sum().item() for name in layers]
        assert sums[-1] == pytest.approx(found.accounts[0].score, rel=1e-10)
        bends = [name for name in layers if name.startswith(("bend", "pool", "flat"))]
        for name in bends:  # they have no parameters
            before = layers[layers.index(name) - 1]
            assert found.layers[name].sum().item() == pytest.approx(found.layers[before].sum().item(), rel=1e-10)


class Regions(nn.Module):
    """Features read in boxes, by operations that are linear or take the largest: a score is gradient times input."""

    def __init__(self, read: Callable[..., Tensor]) -> None:
        super().__init__()
        self.features, self.head, self.read = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 5), read

    def forward(self, x: Tensor) -> Tensor:
        boxes = x.new_tensor([[0, 1, 1, 6, 8], [1, 2, 0, 9, 5]])
        return self.head(self.read(self.features(x), boxes, 2).flatten(2).sum(2)[:, :2].repeat(1, 4))


@pytest.mark.parametrize("read", [torchvision.ops.roi_align, torchvision.ops.ps_roi_align, torchvision.ops.roi_pool])
def test_regions_of_interest_hand_on_what_they_read(read: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    model, x = Regions(read).double(), noise(2, 3, 14, 14).double().requires_grad_()
    (slope,) = torch.autograd.grad(model(x)[:, CLASS].sum(), x)
    found = of(model, x.detach())
    assert torch.allclose(found.input[0], (x * slope).detach(), rtol=1e-12, atol=1e-14)
    assert found.accounts[0].error <= 1e-10


def test_a_detection_of_two_stages_is_shared_out_but_for_the_constants_of_frozen_batch_norms() -> None:
    model, x = detector("faster").double(), picture().permute(2, 0, 1)[None].double() / 255
    (found,) = hm.Lens(model).explain(x, hm.Detection(0), method="lrppixels", progress=False)
    assert found.raw.abs().max() > 0
    assert not found.caution
    for module in model.modules():
        if isinstance(module, torchvision.ops.FrozenBatchNorm2d):
            module.bias.fill_(0.1)
    with pytest.warns(hm.HookmapWarning, match=r"incomplete: .* look at Add behind 'backbone.body.layer4"):
        hm.Lens(model).explain(x, hm.Detection(0), method="lrppixels", progress=False)


# ------------------------------------------------------------------ zennit


def comparable(model: nn.Module) -> nn.Module:
    """In float64, without the epsilon in batch norms: zennit leaves those it has merged with 1 / sqrt(1 + epsilon)."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-15
    return model.double()


def by_zennit(model: nn.Module, x: Tensor, peer: Peer) -> Tensor:
    x = x.clone().requires_grad_()
    with peer.context(copy.deepcopy(model)) as changed:
        output = changed(x)
        score = torch.zeros_like(output)
        score[:, CLASS] = output[:, CLASS].detach()
        return torch.autograd.grad(output, x, score)[0]


def same(found: Relevance, expected: Tensor, tolerance: float) -> None:
    assert (found.input[0] - expected).abs().max() <= tolerance * expected.abs().max()


TINY = 1e-15


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_epsilon_plus_flat_is_zennits(name: str) -> None:
    model = comparable(convnet() if name == "convnet" else resnet18())
    x = noise(2, 3, 32, 32).double()
    canonizers = [SequentialMergeBatchNorm()] if name == "convnet" else [ResNetCanonizer()]
    peer = zennit.composites.EpsilonPlusFlat(epsilon=1e-6, stabilizer=TINY, canonizers=canonizers)
    same(of(model, x, EPSILON_PLUS_FLAT), by_zennit(model, x, peer), 1e-10)


@pytest.mark.parametrize(("ours", "theirs"), [(Epsilon(1e-3), zennit.rules.Epsilon(1e-3)), (Gamma(0.25), None)])
def test_epsilon_and_gamma_are_zennits(ours: object, theirs: object) -> None:
    model, x = comparable(convnet()), noise(2, 3, 32, 32).double()
    theirs = theirs or zennit.rules.Gamma(0.25, stabilizer=TINY)

    def chosen(_: object, __: str, module: nn.Module) -> object:
        if isinstance(module, AvgPool):
            return zennit.rules.Norm(stabilizer=TINY)
        if isinstance(module, Activation):
            return zennit.rules.Pass()
        return theirs if isinstance(module, Linear) else None

    peer = Peer(module_map=chosen, canonizers=[SequentialMergeBatchNorm()])
    same(of(model, x, Composite("test", linear=ours, convolution=ours)), by_zennit(model, x, peer), 1e-10)


# ------------------------------------------------------------------ the user's model


def state(model: nn.Module) -> list[object]:
    return [
        [(p.requires_grad, p.grad, p._version) for p in model.parameters()],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        [b.clone().tolist() for b in model.buffers()],
    ]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(frozen: bool, fails: bool) -> None:
    model, x = convnet(nn.GELU).requires_grad_(not frozen), noise(1, 3, 16, 16)
    before, pixels = state(model), x.clone()
    with torch.no_grad():
        if fails:
            with pytest.raises(ZeroDivisionError):
                relevance(model, x, lambda output: output[:, 1 // 0])
        else:
            of(model, x, LRP, "conv2")
    assert state(model) == before
    assert torch.equal(x, pixels)
    assert not x.requires_grad


def test_frozen_models_give_the_same() -> None:
    model, x = convnet(nn.GELU), noise(1, 3, 16, 16)
    free = of(model, x, LRP, "conv2")
    frozen = of(model.requires_grad_(False), x, LRP, "conv2")
    assert torch.equal(free.input, frozen.input)
    assert torch.equal(free.layers["conv2"], frozen.layers["conv2"])
    assert free.accounts == frozen.accounts
    with torch.inference_mode():
        assert torch.equal(of(model, x, LRP).input, free.input)


def test_a_frozen_model_that_cannot_be_copied_is_refused_in_a_sentence() -> None:
    model = convnet().requires_grad_(False)
    model.lock = threading.Lock()
    with pytest.raises(hm.ModelError, match=r"can be copied .*; call model.requires_grad_\(True\)"):
        of(model, noise(1, 3, 16, 16))


def test_scores_that_do_not_depend_on_the_input_are_refused() -> None:
    with pytest.raises(hm.TargetError, match="don't depend on the input"):
        relevance(convnet(), noise(1, 3, 16, 16), lambda output: torch.ones(1))


class Backbone(nn.Module):
    """One that runs its own first half without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convnet()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.net[:3](x)
        return self.net[3:](x)


def test_a_backbone_without_gradients_has_relevance_from_a_layer_on() -> None:
    model, x = Backbone().double(), noise(1, 3, 16, 16).double()
    with pytest.raises(hm.TargetError, match="switches gradients off on the way"):
        of(model, x)
    found = of(model, x, LRP, "net.bend1")
    assert torch.allclose(found.layers["net.bend1"], of(model.net, x, LRP, "bend1").layers["bend1"], atol=1e-12)
    assert found.accounts[0].error <= 1e-10


class Checkpointed(Backbone):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return self.net[6:](checkpoint(self.net[:6], x, use_reentrant=self.reentrant))


def test_checkpoints_are_computed_again_or_refused_by_name() -> None:
    x = noise(1, 3, 16, 16).double()
    for composite in (ZERO, LRP):
        plain, found = (of(model.double(), x, composite) for model in (convnet(), Checkpointed(False)))
        assert torch.equal(plain.input, found.input)
    with pytest.raises(hm.ModelError, match="no rule for CheckpointFunction"):
        of(Checkpointed(True).double(), x)


@pytest.mark.parametrize("frozen", [False, True])
def test_one_thread_explains_while_another_predicts(frozen: bool) -> None:
    model, x = convnet(nn.GELU).requires_grad_(not frozen), noise(1, 3, 16, 16)
    alone, plain = of(model, x, LRP).input, model(x).detach()
    wrong: list[str] = []

    def explain() -> None:
        for _ in range(20):
            if not torch.equal(of(model, x, LRP).input, alone):
                wrong.append("relevance")

    def predict() -> None:
        for _ in range(200):
            output = model(x)
            if not torch.equal(output, plain) or output.requires_grad == frozen:
                wrong.append("prediction")

    with preserved(model):
        threads = [threading.Thread(target=work) for work in (explain, predict, explain)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_layers_that_work_in_place_change_nothing() -> None:
    def net(inplace: bool) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 4, 3), nn.SiLU(inplace), nn.Flatten())

    x = noise(1, 3, 8, 8)
    for composite in (ZERO, LRP, EPSILON_PLUS_FLAT):
        plain, changed = of(net(False), x, composite, "0"), of(net(True), x, composite, "0")
        assert torch.equal(plain.input, changed.input)
        assert torch.equal(plain.layers["0"], changed.layers["0"])
