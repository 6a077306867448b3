"""The capture primitive, held against out-of-place references, finite differences and full forwards."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import hookmap as hm
from hookmap._nested import tensors_in
from hookmap.errors import DisconnectedError, HookmapWarning, LayerError, ModelError, TargetError


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def state_of(model: nn.Module) -> dict[str, object]:
    return {
        "tensors": {k: v.clone() for k, v in model.state_dict().items()},
        "flags": [p.requires_grad for p in model.parameters()],
        "grads": [p.grad for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "attributes": [sorted(m.__dict__) for m in model.modules()],
    }


def assert_same_state(before: dict[str, object], after: dict[str, object]) -> None:
    for key, tensor in before["tensors"].items():
        assert torch.equal(tensor, after["tensors"][key]), key
    for part in ("flags", "grads", "modes", "hooks", "attributes"):
        assert before[part] == after[part], part
    assert not any(after["hooks"])


def reference(model: nn.Module, x: torch.Tensor, split: int, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Activation and gradient at model.features[split], with every ReLU out of place."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    a = model.features[: split + 1](x).detach().requires_grad_()
    rest = model.features[split + 1 :](a)
    score = model.classifier(torch.flatten(model.avgpool(rest), 1))[:, index].sum()
    return a.detach(), torch.autograd.grad(score, a)[0]


def test_conv_before_inplace_relu_is_not_corrupted() -> None:
    torch.manual_seed(0)
    model = torchvision.models.vgg11(weights=None).eval()
    x = torch.randn(2, 3, 64, 64)
    with hm.capture(model, "features.18") as seen:
        seen.differentiate(model(x)[:, 7])
    a, g = reference(model, x, 18, 7)
    assert a.min() < 0  # the ReLU would have removed it
    assert torch.equal(seen["features.18"].activation, a)
    assert torch.allclose(seen["features.18"].gradient, g, atol=1e-9)


def test_gradient_equals_a_finite_difference_in_float64() -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with hm.capture(model, "layer3.1.bn1") as seen:
        seen.differentiate(model(x)[:, 5])
        a, g = seen["layer3.1.bn1"].activation.detach(), seen["layer3.1.bn1"].gradient
        direction = torch.randn_like(a)
        step = 1e-6
        up = seen.replay("layer3.1.bn1", a + step * direction)[:, 5]
        down = seen.replay("layer3.1.bn1", a - step * direction)[:, 5]
    assert torch.allclose((up - down) / (2 * step), (g * direction).sum(), rtol=1e-5)


def test_several_layers_match_plain_autograd(resnet: nn.Module, x: torch.Tensor) -> None:
    names = ["layer4", "layer3.*", "layer2.0.conv1"]
    with hm.capture(resnet, names) as seen:
        seen.differentiate(resnet(x)[:, 3])
    assert list(seen) == ["layer4", "layer3.0", "layer3.1", "layer2.0.conv1"]
    assert seen.order == ["layer2.0.conv1", "layer3.0", "layer3.1", "layer4"]
    kept: dict[str, torch.Tensor] = {}
    handles = [
        resnet.get_submodule(n).register_forward_hook(lambda _, __, out, n=n: kept.__setitem__(n, out)) for n in seen
    ]
    score = resnet(x)[:, 3].sum()
    for handle in handles:
        handle.remove()
    for name in ("layer4", "layer3.0", "layer3.1"):  # conv1's output is overwritten in place by its ReLU
        (gradient,) = torch.autograd.grad(score, kept[name], retain_graph=True)
        assert torch.allclose(seen[name].gradient, gradient, atol=1e-8), name
        assert torch.allclose(seen[name].activation, kept[name], atol=1e-5), name


def test_stacked_targets_equal_one_by_one(resnet: nn.Module, x: torch.Tensor) -> None:
    with hm.capture(resnet, "layer4") as seen:
        scores = resnet(x)
        seen.differentiate(torch.stack([scores[:, 1], scores[:, 2]]))
        both = seen["layer4"].gradient
        seen.differentiate(scores[:, 2])
        second = seen["layer4"].gradient
    assert both.shape == (2, 2, 512, 2, 3)
    assert torch.equal(both[1], second)
    assert not torch.equal(both[0], second)


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_works_whatever_the_caller_switched_off(resnet: nn.Module, caller: type, x: torch.Tensor) -> None:
    with hm.capture(resnet, "layer4") as seen:
        seen.differentiate(resnet(x)[:, 3])
    with caller():
        mode = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        fresh = x.clone()  # inside inference_mode this is an inference tensor
        with hm.capture(resnet, "layer4") as inside:
            inside.differentiate(resnet(fresh)[:, 3])
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == mode
    assert torch.equal(seen["layer4"].gradient, inside["layer4"].gradient)


def test_frozen_parameters(resnet: nn.Module, x: torch.Tensor) -> None:
    frozen = copy.deepcopy(resnet).requires_grad_(False)
    with hm.capture(frozen, "layer4") as seen:
        seen.differentiate(frozen(x)[:, 3])
    assert seen["layer4"].gradient.abs().sum() > 0
    assert not any(p.requires_grad for p in frozen.parameters())


def test_under_autocast_a_training_step_afterwards_still_has_gradients(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with hm.capture(model, "layer4") as seen:
            seen.differentiate(model(x)[:, 3].float())
        loss = model(x).float().sum()
    loss.backward()
    assert seen["layer4"].activation.dtype == torch.bfloat16
    # Had the cache kept the casts made without a graph, the early weights would get no gradient.
    assert all(p.grad is not None for p in model.parameters())


def test_inside_a_training_loop_nothing_is_left_behind(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    before = state_of(model)
    with hm.capture(model, ["layer4", "conv"]) as seen:
        seen.differentiate(model(x)[:, 3])
    assert_same_state(before, state_of(model))
    assert not seen["layer4"].activation.requires_grad
    assert seen["layer4"].activation.grad is None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_state_is_restored_when_the_forward_is_cut_off(
    resnet: nn.Module, x: torch.Tensor, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error("stop")

    before = state_of(resnet)
    handle = resnet.layer4.register_forward_hook(fail)
    try:
        with pytest.raises(error, match="stop"), hm.capture(resnet, ["layer3", "fc"]):
            resnet(x)
    finally:
        handle.remove()
    assert_same_state(before, state_of(resnet))
    assert torch.is_grad_enabled()


def test_memory_kept_is_the_tail_only(resnet: nn.Module, x: torch.Tensor) -> None:
    own = {p.data_ptr() for p in resnet.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), hm.capture(resnet, "layer4") as seen:
        seen.differentiate(resnet(x)[:, 3])
    assert sum(kept.values()) <= x.shape[0] * 512 * 4 + 64  # the pooled features that the head multiplies


class Hidden(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    mask: torch.Tensor


class Nested(nn.Module):
    """A layer that returns a nest of tuples, dicts and integers."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.form = form

    def forward(self, x: torch.Tensor) -> object:
        a = self.conv(x)
        b = a * 2
        return {
            "tuple": (a, b, 3),
            "list": [a, b],
            "named": Hidden(a, b),
            "dict": {"a": a, "b": b},
            "ordered": OrderedDict(a=a, b=b),
            "dataclass": Output(a, b),
        }[self.form]


class Wrapper(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.body = Nested(form)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.body(x)
        a, b = list(tensors_in(out).values())
        assert type(out) is type(self.body(x))
        return (a.square() + b).flatten(1)


@pytest.mark.parametrize("form", ["tuple", "list", "named", "dict", "ordered", "dataclass"])
def test_layers_that_return_nests(form: str) -> None:
    torch.manual_seed(0)
    model = Wrapper(form)
    x = torch.randn(2, 3, 5, 5)
    with hm.capture(model, "body") as seen:
        seen.differentiate(model(x).sum(1))
    call = seen["body"].calls[0]
    assert len(call.activations) == 2
    first, second = call.activations
    assert torch.allclose(call.gradients[first], 2 * call.activations[first])
    assert torch.allclose(call.gradients[second], torch.ones_like(call.activations[second]))


def test_a_layer_that_runs_several_times_keeps_every_call() -> None:
    torch.manual_seed(0)
    shared = nn.Conv2d(3, 3, 3, padding=1)
    model = nn.Sequential(OrderedDict(a=shared, b=nn.ReLU(inplace=True), c=shared))
    x = torch.randn(1, 3, 6, 6)
    with hm.capture(model, "a") as seen:
        seen.differentiate(model(x).square().sum())
    calls = seen["a"].calls
    assert len(calls) == 2
    assert torch.allclose(calls[0].activation, shared(x))
    assert torch.allclose(calls[1].activation, shared(F.relu(shared(x))))
    assert torch.allclose(calls[1].gradient, 2 * calls[1].activation)
    with pytest.warns(HookmapWarning, match="ran 2 times"):
        assert seen["a"].activation is calls[1].activation


def test_two_threads_on_one_model_do_not_mix(resnet: nn.Module) -> None:
    inputs = [torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(2)]

    def look(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with hm.capture(resnet, "layer4") as seen:
            seen.differentiate(resnet(x)[:, 3])
        assert len(seen["layer4"].calls) == 1
        return seen["layer4"].activation, seen["layer4"].gradient

    alone = [look(x) for x in inputs]
    failures: list[str] = []

    def repeat(i: int) -> None:
        for _ in range(15):
            a, g = look(inputs[i])
            if not (torch.allclose(a, alone[i][0], atol=1e-5) and torch.allclose(g, alone[i][1], atol=1e-7)):
                failures.append(f"thread {i}")

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in resnet.modules())


def test_another_thread_may_meet_a_hook_of_which_torch_has_not_said_yet_that_it_takes_keywords(resnet, x) -> None:
    """Nor any more, while it is taken away: the other's prediction ended in a TypeError."""
    plain = resnet(x)
    with hm.capture(resnet, ["layer4", "input"], attention=True), ThreadPoolExecutor(1) as other:
        for module in resnet.modules():
            module._forward_pre_hooks_with_kwargs.clear()
        assert torch.equal(other.submit(resnet, x).result(), plain)


def test_replay_of_variants_equals_the_full_model(resnet: nn.Module, x: torch.Tensor) -> None:
    with hm.capture(resnet, "layer4.0.conv2", gradients=False) as seen, torch.no_grad():
        resnet(x)
        a = seen["layer4.0.conv2"].activation
        variants = a[1:2] * torch.rand(5, a.shape[1], 1, 1)
        output = seen.replay("layer4.0.conv2", variants, sample=1)
    tail = resnet.layer4[0]
    with torch.no_grad():
        body = resnet.layer3(
            resnet.layer2(resnet.layer1(resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x[1:2]))))))
        )
        joined = F.relu(tail.bn2(variants) + tail.downsample(body))
        expected = resnet.fc(torch.flatten(resnet.avgpool(resnet.layer4[1](joined)), 1))
    assert output.shape == (5, 1000)
    assert torch.allclose(output, expected, atol=1e-5)


class Concatenating(nn.Module):
    """Its wiring can't broadcast: the input meets the layer in a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(7, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([x, self.conv(x)], 1)).mean((2, 3))


def test_replay_falls_back_to_the_full_forward() -> None:
    torch.manual_seed(0)
    model, x = Concatenating(), torch.randn(3, 3, 8, 8)
    with hm.capture(model, "conv", gradients=False) as seen:
        model(x)
        variants = torch.randn(6, 4, 8, 8)
        output = seen.replay("conv", variants, sample=2)
    expected = model.head(torch.cat([x[2:3].expand(6, -1, -1, -1), variants], 1)).mean((2, 3))
    assert torch.allclose(output, expected, atol=1e-6)


class FrozenBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            a = self.backbone(x)
        return self.head(a.mean((2, 3)))


def test_backbone_under_the_models_own_no_grad() -> None:
    model, x = FrozenBackbone(), torch.randn(2, 3, 8, 8)
    with hm.capture(model, "backbone") as seen, pytest.raises(DisconnectedError, match="'input'"):
        seen.differentiate(model(x)[:, 1])
    with hm.capture(model, ["backbone", "input"]) as seen:
        seen.differentiate(model(x)[:, 1])
    expected = (model.head.weight[1] / 36).view(1, 4, 1, 1).expand(2, 4, 6, 6)
    assert torch.allclose(seen["backbone"].gradient, expected)


def test_a_forward_decorated_with_no_grad() -> None:
    class Predictor(nn.Sequential):
        @torch.no_grad()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    model = Predictor(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    with hm.capture(model, "0") as seen:
        seen.differentiate(model(torch.randn(2, 3, 8, 8))[:, 1])
    assert torch.allclose(seen["0"].gradient[0].flatten(), model[2].weight[1])


def test_input_gradient_equals_plain_autograd(resnet: nn.Module, x: torch.Tensor) -> None:
    with hm.capture(resnet, "input") as seen:
        seen.differentiate(resnet(x)[:, 3])
    pixels = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(resnet(pixels)[:, 3].sum(), pixels)
    assert torch.allclose(seen["input"].gradient, expected, atol=1e-8)
    assert torch.equal(seen["input"].activation, x)


def test_wrappers_say_what_to_pass(resnet: nn.Module) -> None:
    with (
        pytest.raises(ModelError, match="pass \\(and call\\) model.module"),
        hm.capture(nn.DataParallel(resnet), "layer4"),
    ):
        pass
    with pytest.raises(ModelError, match="model._orig_mod"), hm.capture(torch.compile(resnet), "layer4"):
        pass
    compiled = copy.deepcopy(resnet)
    compiled.layer1.compile()
    with pytest.raises(ModelError, match="'layer1' is compiled, and hooks don't reach"), hm.capture(compiled, "layer4"):
        pass
    scripted = torch.jit.trace(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 5, 5))
    with pytest.raises(ModelError, match="TorchScript"), hm.capture(scripted, "layer4"):
        pass
    with pytest.raises(ModelError, match="a str"), hm.capture("resnet18", "layer4"):
        pass


def test_what_is_asked_too_early_or_wrongly_is_said(resnet: nn.Module, x: torch.Tensor) -> None:
    with hm.capture(resnet, "layer4") as seen:
        with pytest.raises(LayerError, match="didn't run"):
            _ = seen["layer4"].activation
        with pytest.raises(LayerError, match="call the model inside"):
            seen.differentiate(torch.ones(2, requires_grad=True))
        scores = resnet(x)
        with pytest.raises(DisconnectedError, match="isn't connected"):
            seen.differentiate(scores[:, 1].detach())
        with pytest.raises(TargetError, match="expected \\(\\), \\(B,\\) or \\(T, B\\)"):
            seen.differentiate(scores[None])
        with pytest.raises(LayerError, match="captured are layer4"):
            _ = seen["layer3"]
        with pytest.raises(LayerError, match="no gradient reached"):
            _ = seen["layer4"].gradient
        with pytest.raises(LayerError, match="recorded \\(2, 512, 2, 3\\)"):
            seen.replay("layer4", torch.zeros(2, 512, 7, 7))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu(x: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).double().eval()
    found = []
    for device in ("cpu", "cuda"):
        model.to(device)
        with hm.capture(model, "layer4") as seen:
            seen.differentiate(model(x.double().to(device))[:, 3])
        found.append((seen["layer4"].activation.cpu(), seen["layer4"].gradient.cpu()))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


class Scaled(nn.Module):
    """A pass over an empty batch runs through, and gives something else: a number read from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3)) * (1 + x.sum())


def test_replay_trusts_a_cheap_prefix_only_if_it_gives_the_recorded_output() -> None:
    model, x = Scaled(), torch.rand(1, 3, 8, 8)
    with hm.capture(model, "conv", gradients=False) as seen:
        model(x)
    variants = torch.randn(5, 4, 6, 6)
    assert torch.allclose(seen.replay("conv", variants, sample=0), variants.mean((2, 3)) * (1 + x.sum()), atol=1e-4)


def test_replay_skips_what_comes_before_the_layer(resnet: nn.Module, x: torch.Tensor) -> None:
    with hm.capture(resnet, "layer4", gradients=False) as seen:
        resnet(x)
    sizes: list[int] = []
    handle = resnet.layer1.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    seen.replay("layer4", torch.randn(7, *seen["layer4"].activation.shape[1:]), sample=1)
    handle.remove()
    assert sizes == [0]
