"""Models that are made of odd parts work, or one sentence says what can't be done and what to do instead."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import hookmap as hm
from networks import convnet, noise
from tiny import OF_ATTENTION, unread

X = noise(1, 3, 16, 16)


def maps(model: nn.Module, method: Any = "gradcam", layer: Any = None, target: Any = 1) -> list[Tensor]:
    with unread():
        found = hm.Lens(model).explain(X, target, layer=layer, method=method, budget=8, progress=False)
    return [heatmap.raw for heatmap in found]


def equal(model: nn.Module, other: nn.Module, method: Any, layer: Any = None) -> bool:
    pairs = zip(maps(model, method, layer), maps(other, method, layer), strict=True)
    return all(torch.allclose(one, two, atol=1e-6 * float(two.abs().max())) for one, two in pairs)


# ---------------------------------------------------------------- what can't be copied


def weight_normed() -> nn.Module:
    net = convnet()
    with pytest.warns(FutureWarning):
        net.conv2 = nn.utils.weight_norm(net.conv2)
    return net


def spectral_normed() -> nn.Module:
    net = convnet()
    net.conv2 = nn.utils.spectral_norm(net.conv2)
    return net.eval()


def with_a_lock() -> nn.Module:
    net = convnet()
    net.lock = threading.Lock()
    return net


def with_a_kept_tensor() -> nn.Module:
    net = convnet()
    net.last = net.conv1.weight * 2
    return net


@pytest.mark.parametrize("make", [weight_normed, spectral_normed, with_a_lock, with_a_kept_tensor])
def test_a_model_that_can_not_be_copied_is_masked_as_it_is(make: Callable[[], nn.Module]) -> None:
    model = make()
    model(X)
    (heatmap,) = hm.Lens(model).explain(X, 1, layer="bend2", method="scorecam", progress=False)
    with torch.no_grad():
        activation = model[:6](X)
        masks = nn.functional.interpolate(activation, X.shape[2:], mode="bilinear")[0]
        low, high = masks.amin((1, 2), keepdim=True), masks.amax((1, 2), keepdim=True)
        masks = (masks - low) / torch.where(high > low, high - low, 1)
        weights = model(X * masks[:, None]).softmax(1)[:, 1] * (high > low).flatten()
        expected = (weights[:, None, None] * activation[0]).sum(0)
    assert torch.allclose(heatmap.raw, expected, atol=1e-5 * float(expected.abs().max()))


def test_running_out_of_memory_is_no_reason_to_take_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("hookmap.attribution.execution.copy.deepcopy", out_of_memory)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        maps(convnet(), "scorecam", "bend2")


# ---------------------------------------------------------------- names and surgery


class TwoNames(nn.Module):
    """Its last convolution is reachable by two names, and a part of it by a third."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convnet()
        self.last = self.net.bend2
        self.body = self.net[:6]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize(("second", "first"), [("last", "net.bend2"), ("body.conv2", "net.conv2")])
def test_a_layer_is_found_by_its_second_name(second: str, first: str) -> None:
    lens = hm.Lens(TwoNames())
    for method in ("gradcam", "scorecam", "ablationcam"):
        (one,) = lens.explain(X, 1, layer=second, method=method, progress=False)
        (other,) = lens.explain(X, 1, layer=first, method=method, progress=False)
        assert one.layer == second
        assert torch.equal(one.raw, other.raw)
    assert list(lens.features(X, second)) == [second]


def test_a_layout_is_given_under_a_second_name() -> None:
    layout = hm.Layout("NCHW", grid=(8, 8))
    assert hm.Lens(TwoNames(), layouts={"last": layout}).engine.trace(X).layout("net.bend2") is layout


class Staged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        net = convnet()
        self.one, self.two, self.head = net[:3], net[3:6], net[6:]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x)))


def _replaced(model: Staged) -> None:
    model.two = nn.Sequential(nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU()))


def _extended(model: Staged) -> None:
    model.two = nn.Sequential(model.two, nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()))


def _shortened(model: Staged) -> None:
    model.two = model.two[:1]


def _renamed(model: Staged) -> None:
    model.two = nn.Sequential(OrderedDict((f"new_{name}", child) for name, child in model.two.named_children()))


@pytest.mark.parametrize("operate", [_replaced, _extended, _shortened, _renamed])
def test_a_model_that_was_operated_on_is_looked_at_again(operate: Callable[[Staged], None]) -> None:
    torch.manual_seed(0)
    model = Staged()
    lens = hm.Lens(model)
    before = lens.explain(X, 1)
    operate(model)
    after, fresh = lens.explain(X, 1), hm.Lens(model).explain(X, 1)
    assert torch.equal(after[0].raw, fresh[0].raw)
    assert after[0].layer == fresh[0].layer
    assert before[0].raw.shape == (8, 8)


# ---------------------------------------------------------------- gradient checkpointing


class Checkpointed(Staged):
    """Runs its two stages under gradient checkpointing."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for stage in (self.one, self.two):
            x = checkpoint(stage, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("method", ["gradcam", "shapleycam", "smoothgradcampp", "fullgrad", "ablationcam", "sess"])
@pytest.mark.parametrize("layer", ["one.conv1", ["one.bend1", "two.bend2"], "two.conv2", ["one", "two"]])
def test_checkpointing_changes_nothing(method: str, layer: Any) -> None:
    assert equal(Checkpointed(reentrant=False), Staged(), method, layer)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_reentrant_checkpointing_is_said() -> None:
    with pytest.raises(hm.ModelError, match=r"reentrant gradient checkpointing.*use_reentrant=False"):
        maps(Checkpointed(reentrant=True))
    assert equal(Checkpointed(reentrant=True), Staged(), "ablationcam", "two")


# ---------------------------------------------------------------- what can't be hooked or differentiated


def test_torchscript_inside_a_model_is_a_part_like_any_other() -> None:
    net, scripted = convnet(), convnet()
    scripted.conv2 = torch.jit.script(scripted.conv2)
    for method in ("gradcam", "shapleycam", "ablationcam", "scorecam"):
        assert equal(scripted, net, method, "bend2")
        assert equal(scripted, net, method, "bend1")
    sentence = "this layer is TorchScript, which can't be hooked; take a layer before"
    with pytest.raises(hm.ModelError, match=sentence), hm.capture(scripted, "conv2"):
        pass
    with pytest.raises(hm.LayerError, match="layer 'conv2' .*RecursiveScriptModule.* didn't run"):
        maps(scripted, layer="conv2")
    assert "RecursiveScriptModule" in str(hm.Lens(nn.Sequential(torch.jit.script(net[:6]), net[6:])).layers(X))


def test_a_compiled_part_is_said() -> None:
    net = convnet()
    model = nn.Sequential(net[:3], torch.compile(net[3:6], backend="eager"), net[6:])
    with pytest.raises(hm.ModelError, match=r"layer '1' is compiled.*put the plain module in its place"):
        hm.Lens(model)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:quantized..linear_dynamic. an autograd kernel was not registered:UserWarning")
def test_a_quantised_model_is_explained_without_gradients() -> None:
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(*convnet()), {nn.Linear})
    for method in ("gradcam", "shapleycam", "fullgrad"):
        with pytest.raises(hm.ModelError, match=r"the model is quantised.*no gradient; take a method that needs none"):
            maps(model, method, "5")
    assert all(found.any() for found in maps(model, ["ablationcam", "scorecam", "eigencam", "rise"], "5"))


def test_a_model_without_weights_is_said() -> None:
    lens = hm.Lens(convnet().to("meta"))
    for ask in (lambda: lens.explain(X, 1), lambda: lens.predict(X)):
        with pytest.raises(hm.ModelError, match="on the meta device, where weights have no values"):
            ask()
    assert "head" in str(lens.layers(X))


def test_complex_scores_are_said() -> None:
    class Complex(Staged):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(super().forward(x))

    with pytest.raises(hm.TargetError, match=r"scores are complex numbers .*pass a target that gives real ones"):
        maps(Complex())
    assert maps(Complex(), target=lambda output: output.abs()[:, 1])[0].any()


# ---------------------------------------------------------------- one image only


class OneImage(nn.Module):
    """As exported models: the batch is written into the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.net = convnet()

    def forward(self, x: Tensor) -> Tensor:
        return self.net[6:](self.net[:6](x).reshape(1, 8, 8, 8)).tanh()


def test_ablation_of_a_model_that_takes_one_image() -> None:
    class AnyImages(OneImage):
        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).tanh()

    assert equal(OneImage(), AnyImages(), "ablationcam", "net.bend2")


def test_a_bug_of_the_model_is_its_own() -> None:
    class Moody(Staged):
        """Fails where its second stage sees next to nothing."""

        def forward(self, x: Tensor) -> Tensor:
            x = self.two(self.one(x))
            if len(x) and float((x == 0).float().mean()) > 0.9:
                raise ValueError("there is nothing to see")
            return self.head(x)

    with pytest.raises(ValueError, match="there is nothing to see"):
        maps(Moody(), "reciprocam", "two.norm2")


# ---------------------------------------------------------------- half precision of the user's own


def test_under_the_users_autocast_maps_are_summed_in_full_precision() -> None:
    net = convnet()
    methods = [name for name in hm.methods.METHODS if name not in {"cam", "gcame", "finercam", *OF_ATTENTION}]
    with torch.autocast("cpu", torch.bfloat16), unread():
        found = hm.Lens(net).explain(X, 1, layer="norm2", method=methods, budget=16, progress=False)
        assert all(heatmap.map.dtype == torch.float32 for heatmap in found)
        with hm.capture(net, "norm2") as seen:
            seen.differentiate(net(X)[:, 1])
    assert {heatmap.raw.dtype for heatmap in found} == {torch.float32}
    activation, gradient = seen["norm2"].activation.double()[0], seen["norm2"].gradient.double()[0]
    expected = {
        "gradcam": (gradient.mean((1, 2), keepdim=True) * activation).sum(0),
        "hirescam": (gradient * activation).sum(0),
        "layercam": (gradient.clamp(min=0) * activation).sum(0),
    }
    for name, truth in expected.items():
        (raw,) = (heatmap.raw.double() for heatmap in found if heatmap.method.name == name)
        assert (raw - truth).abs().max() <= 1e-6 * truth.abs().max(), name  # in bfloat16 some 1e-2


# ---------------------------------------------------------------- odd buffers

BUFFERS = {
    "expanded": lambda: torch.tensor(1.0).expand(3, 4),
    "of stride 0": lambda: torch.arange(3.0).as_strided((4, 3), (0, 1)),
    "complex": lambda: torch.ones(2, 2, dtype=torch.complex64),
    "conjugated": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "negative by a bit": lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    "of truths": lambda: torch.ones(3, dtype=torch.bool),
    "of no axis": lambda: torch.tensor(3),
    "empty": lambda: torch.empty(0, 4),
    "empty across": lambda: torch.empty(3, 0),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "of compressed rows": lambda: torch.eye(3).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "of eight bits": lambda: torch.ones(3).to(torch.float8_e4m3fn),
    "without values": lambda: torch.empty(3, device="meta"),
}


@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_model_may_have_odd_buffers(make: Callable[[], Tensor]) -> None:
    from hookmap.hooks.fingerprint import fingerprint

    net = convnet()
    net.register_buffer("odd", make())
    kept = net.odd
    plain = fingerprint(convnet())
    assert fingerprint(net) == fingerprint(net) != plain
    assert equal(net, convnet(), ["gradcam", "scorecam"], "bend2")
    assert net.odd is kept


@pytest.mark.parametrize("name", ["complex", "sparse", "of compressed rows", "quantised", "of truths"])
def test_a_changed_value_changes_the_fingerprint(name: str) -> None:
    from hookmap.hooks.fingerprint import fingerprint

    net, other = nn.Module(), nn.Module()
    net.register_buffer("odd", BUFFERS[name]())
    value = BUFFERS[name]()
    changed = {
        "complex": lambda: value * 1j,
        "sparse": lambda: (torch.eye(3) * 2).to_sparse(),
        "of compressed rows": lambda: (torch.eye(3) * 2).to_sparse_csr(),
        "quantised": lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8),
        "of truths": lambda: ~value,
    }
    other.register_buffer("odd", changed[name]())
    assert fingerprint(net) != fingerprint(other)
