"""A probe looks at a model while it trains: the training is bit for bit the same, and what is logged is true."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from copy import deepcopy
from functools import partial
from pathlib import Path

import lightning
import numpy as np
import pytest
import pytorch_lightning
import torch
import transformers as hf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

import hookmap as hm
from detectors import scene, squares
from hookmap.callbacks import Probe
from hookmap.callbacks.heatmaps import in_small
from hookmap.callbacks.history import HeatmapHistory
from networks import convnet, noise

STEPS = 20
DATA = TensorDataset(noise(80, 3, 24, 24), torch.arange(80) % 4)
PROBED = noise(3, 3, 24, 24, seed=9)
NET = convnet(classes=4)


class Noisy(nn.Module):
    """Draws from every generator in both modes, and has batch norm, dropout, a counter and a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 12, 3, 1, 1), nn.BatchNorm2d(12)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(12, 4)
        self.norm1.weight.requires_grad_(False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = x + random.random() * torch.randn_like(x) + 0.1 * float(np.random.rand())
        x = torch.relu_(self.norm1(self.conv1(x)))
        x = torch.relu_(self.norm2(self.conv2(x)))
        return self.head(self.drop(x.mean((2, 3))))


def seeded() -> Noisy:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    net = Noisy()
    net.train().norm2.eval()  # a part that its owner holds in evaluation mode
    return net


def train(probe=None, *, wrap=lambda net: net, autocast=False):
    """Twenty steps; everything that could differ at the end, and the order of the data."""
    net = seeded()
    wrapped = wrap(net)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-2)
    seen = []
    for step, (x, y) in enumerate(DataLoader(DATA, 4, shuffle=True)):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if probe is not None:
                probe(wrapped, step)
            state = torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled(), torch.is_grad_enabled()
            loss = nn.functional.cross_entropy(wrapped(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append((y.tolist(), float(loss.detach()), state))
    if probe is not None:
        probe.finish(wrapped, STEPS)
    return state_of(net, optimizer), seen


def state_of(net, optimizer):
    return {
        "weights": net.state_dict(),
        "gradients": {name: p.grad for name, p in net.named_parameters()},
        "optimizer": optimizer.state_dict(),
        "modes": {name: m.training for name, m in net.named_modules()},
        "trained": {name: p.requires_grad for name, p in net.named_parameters()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()],
        "attributes": {name: sorted(vars(m)) for name, m in net.named_modules()},
        "random": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
    }


def same(one, other) -> bool:
    """Bit for bit."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def make(folder: Path, **how) -> Probe:
    return Probe(PROBED, folder, **{"every": 10, "target": hm.PerImage([0, 1, 2]), "layers": "conv", **how})


def logged(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_twenty_steps_are_the_same_with_and_without(tmp_path, autocast):
    alone = train(autocast=autocast)
    assert same(train(make(tmp_path), autocast=autocast), alone)
    assert logged(tmp_path).Tags()["images"]


@pytest.mark.parametrize("draw", [torch.rand, np.random.rand, lambda n: random.random()], ids=["torch", "numpy", "own"])
def test_a_single_number_drawn_on_the_way_would_be_noticed(draw):
    class Draws(Probe):
        def look(self, model, step):
            draw(1)

    (drawn, _), (alone, _) = train(Draws(PROBED, every=10)), train()
    assert not same(drawn["weights"], alone["weights"])


def test_compiled_models_stay_the_same_too(tmp_path):
    torch._dynamo.reset()
    compiled = partial(torch.compile, backend="eager")
    assert same(train(make(tmp_path), wrap=compiled), train(wrap=compiled))


def test_distributed_models_stay_the_same_and_only_rank_zero_looks(tmp_path, monkeypatch):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrap = nn.parallel.DistributedDataParallel
        assert same(train(make(tmp_path / "runs"), wrap=wrap), train(wrap=wrap))
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
        train(make(tmp_path / "none"))
        assert not (tmp_path / "none").exists()
    finally:
        torch.distributed.destroy_process_group()


def lightning_run(package, folder, probe=None, logger=False, net="net"):
    class Module(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = seeded()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    module = Module()
    trainer = package.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        accumulate_grad_batches=2,
        logger=logger,
        callbacks=[] if probe is None else [hm.LightningProbe(probe, net)],
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, DataLoader(DATA, 4, shuffle=True))
    return state_of(module, trainer.optimizers[0])


@pytest.mark.parametrize(("package", "net"), [(lightning, "net"), (pytorch_lightning, None)], ids=["new", "old"])
def test_lightning_trains_the_same_and_its_logger_is_found(tmp_path, package, net):
    logger = package.pytorch.loggers if package is lightning else package.loggers
    logger = logger.TensorBoardLogger(tmp_path, "", "")
    alone = lightning_run(package, tmp_path)
    assert same(lightning_run(package, tmp_path, make(None), logger, net), alone)
    steps = [event.step for event in logged(tmp_path).Images("heatmaps")]
    assert steps == [0, 10, 20]
    assert (tmp_path / "animation.webp").exists()


def test_lightning_without_a_logger_writes_into_its_folder(tmp_path):
    lightning_run(lightning, tmp_path, make(None, every=20))
    assert logged(tmp_path / "hookmap").Tags()["scalars"]


def test_a_network_that_is_not_there_is_named(tmp_path):
    with pytest.raises(hm.ModelError, match="Module has no network in 'backbone'"):
        lightning_run(lightning, tmp_path, make(tmp_path), net="backbone")


class ForTrainer(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = seeded()

    def forward(self, x, labels=None):
        logits = self.net(x)
        return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def transformers_run(folder, probe=None, bf16=False):
    model = ForTrainer()
    arguments = hf.TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        use_cpu=True,
        bf16=bf16,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = hf.Trainer(
        model,
        arguments,
        train_dataset=[{"x": x, "labels": int(y)} for x, y in DATA],
        callbacks=[] if probe is None else [hm.TransformersProbe(probe)],
    )
    trainer.train()
    return state_of(model, trainer.optimizer)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_transformers_trains_the_same(tmp_path, bf16):
    alone = transformers_run(tmp_path, bf16=bf16)
    assert same(transformers_run(tmp_path, make(None), bf16), alone)
    events = logged(tmp_path / "runs" / "hookmap")
    assert [event.step for event in events.Images("heatmaps")] == [0, 10, 20]


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
def test_tags_are_the_same_at_every_step_and_their_numbers_are_true(tmp_path):
    net = deepcopy(NET).train()
    kept = []
    with Probe(PROBED, tmp_path, every=1, layers=["conv1", "bend2"], target=hm.PerImage([0, 1, 2])) as probe:
        for step in range(3):
            kept.append(truth(net))
            probe(net, step)
            with torch.no_grad():
                net.conv1.weight.mul_(0.5)
                net.conv2.bias[:3] = -1e3  # three channels die
        kept.append(truth(net))
    events = logged(tmp_path)
    counts = Counter({tag: len(events.Images(tag)) for tag in events.Tags()["images"]})
    assert counts == {"features/input 0": 4, "heatmaps": 4, "animation": 1}
    for tag in kept[0]:
        assert [event.step for event in events.Scalars(tag)] == [0, 1, 2, 3]
        assert [event.value for event in events.Scalars(tag)] == pytest.approx([seen[tag] for seen in kept], rel=1e-5)
    dead = [event.value for event in events.Scalars("statistics/bend2/dead share")]
    assert np.diff(dead).tolist() == [3 / 8, 0, 0]


def truth(net) -> dict[str, float]:
    """What a plain forward in evaluation mode gives."""
    twin = deepcopy(net).eval()
    seen = {}
    for name in ("conv1", "bend2"):
        twin.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: o.double()}))
    with torch.no_grad():
        logits = twin(PROBED)
    found = {f"probability/input {i}": float(logits.softmax(1)[i, i]) for i in range(3)}
    for name, values in seen.items():
        flat = values.transpose(0, 1).flatten(1)
        found[f"statistics/{name}/mean"] = float(values.mean())
        found[f"statistics/{name}/std"] = float(values.std(correction=0))
        found[f"statistics/{name}/sparsity"] = float((values <= 0).double().mean())
        found[f"statistics/{name}/dead share"] = float((flat == flat[:, :1]).all(1).double().mean())
    return found


@pytest.mark.filterwarnings("ignore:the heatmap of .* is zero everywhere:hookmap.HookmapWarning")
@pytest.mark.parametrize("late", [0, 1], ids=["before the step", "after the step"])
def test_the_animation_of_a_block_ends_with_the_trained_model(tmp_path, late):
    net = deepcopy(NET).train()
    with make(tmp_path, every=4) as probe:
        for step in range(6):
            if not late:
                probe(net, step)
            with torch.no_grad():
                net.conv1.weight.mul_(0.9)
            if late:
                probe(net, step + 1)
        kept = truth(net)
    events = logged(tmp_path)
    means = {event.step: event.value for event in events.Scalars("statistics/conv1/mean")}
    assert list(means) == ([4, 6] if late else [0, 4, 6])
    assert means[6] == pytest.approx(kept["statistics/conv1/mean"], rel=1e-5)


def test_heatmaps_that_show_nothing_say_so_and_are_counted(tmp_path):
    net = deepcopy(NET)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    with pytest.warns(hm.HookmapWarning, match="zero everywhere"), make(tmp_path) as probe:
        probe(net, 0)
    (event,) = logged(tmp_path).Scalars("heatmaps/without evidence")
    assert event.value == len(PROBED)


def test_the_animation_keeps_even_steps_and_the_last(tmp_path):
    heatmaps = hm.Lens(NET).explain(PROBED, target=[0, 1])
    history = HeatmapHistory(6)
    for step in range(0, 230, 10):
        history.add(step, in_small(heatmaps))
        assert len(history) <= 6
    apart = np.diff(history.steps[:-1])
    assert history.steps[0] == 0
    assert history.steps[-1] == 220
    assert len(set(apart.tolist())) == 1
    drawn = history.animated()
    assert len(drawn.frames) == len(drawn.milliseconds) == len(history)
    for kind in ("webp", "gif"):
        with Image.open(drawn.save(tmp_path / f"animations/a.{kind}")) as saved:
            assert saved.n_frames == len(history)
            assert saved.size == drawn.frames[0].size
            assert saved.info["loop"] == 0
    with pytest.raises(hm.HookmapError, match="'a.mp4' doesn't end in"):
        drawn.save(tmp_path / "a.mp4")


def test_a_frame_shows_the_maps_of_its_step(tmp_path):
    net = deepcopy(NET)
    with Probe(PROBED[:1], tmp_path, every=1, target=1, layer="bend2") as probe:
        probe(net, 0)
        net.conv2.weight.data.neg_()
        probe(net, 1)
        probe(net, 2)
        first, second, third = (np.asarray(frame).astype(int)[68:388, 24:344] for frame in probe.animation.frames)
    assert np.abs(first - second).max() > 60  # another map
    assert np.abs(second - third).max() == 0  # the same


def test_photos_of_several_sizes_and_a_writer_that_stays_open(tmp_path, lens, cat, coffee):
    net = deepcopy(lens.model)
    with SummaryWriter(tmp_path) as writer:
        probe = Probe([cat, coffee], writer, preprocessing=lens.preprocessing, labels=lens.labels)
        probe.look(net, 7)
        probe.close()
        writer.add_scalar("still/open", 1.0, 8)
    events = logged(tmp_path)
    assert [event.step for event in events.Images("heatmaps")] == [7]
    assert events.Scalars("probability/cat")[0].value == pytest.approx(lens.predict(cat)[0][0].probability, rel=1e-5)
    assert events.Scalars("still/open")
    names = {tag.split("/")[1] for tag in events.Tags()["scalars"] if tag.startswith("statistics/")}
    assert names == {"blocks.0", "blocks.2", "blocks.4", "blocks"}


def test_images_of_one_name_are_told_apart(tmp_path, lens, cat):
    with Probe([cat, cat], tmp_path, every=1, preprocessing=lens.preprocessing) as probe:
        probe(lens.model, 0)
    tags = [tag for tag in logged(tmp_path).Tags()["scalars"] if tag.startswith("probability/")]
    assert sorted(tags) == ["probability/cat", "probability/cat (2)"]


def test_a_detector_that_finds_nothing_in_an_image_yet_is_watched_all_the_same(tmp_path):
    found = squares()
    net, how = found.engine.called, {"preprocessing": found.preprocessing, "labels": ["red", "green"]}
    with Probe([scene(), scene((0, 16, 16))], tmp_path, every=1, layers="conv", **how) as probe:
        for step, bias in enumerate([-100.0, -4.0, -4.0]):  # at first it finds nothing at all
            net.plain.head.bias.data.fill_(bias)
            probe(net, step)
        dark = np.asarray(probe.animation.frames[0])
        assert probe.animation.frames[1].size == probe.animation.frames[0].size
        assert (np.asarray(probe.animation.frames[1]) != dark).any()
    events = logged(tmp_path)
    assert [event.step for event in events.Images("heatmaps")] == [1, 2]
    assert [event.step for event in events.Scalars("statistics/head/mean")] == [0, 1, 2]


def test_a_network_that_diverged_is_reported_once_and_trained_on(tmp_path):
    net = deepcopy(NET)
    with make(tmp_path, every=1) as probe:
        probe(net, 0)
        net.conv1.weight.data.fill_(torch.nan)
        with pytest.warns(hm.HookmapWarning, match=r"isn't finite.* \(so it is with 2 others\)"):
            probe(net, 1)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            net.conv2.forward = lambda x: 1 / 0
            probe(net, 2)
            probe(net, 3)
            del net.conv2.forward
        reports = [str(w.message) for w in said if "training goes on" in str(w.message)]
        assert len(reports) == 1
        assert "step 2 (ZeroDivisionError: division by zero)" in reports[0]
        net.conv1.weight.data.fill_(0.1)
        probe(net, 4)
    events = logged(tmp_path)
    means = {event.step: event.value for event in events.Scalars("statistics/conv1/mean")}
    assert np.isnan(means[1])
    assert np.isfinite(means[4])
    assert set(means) == {0, 1, 4}
    assert (tmp_path / "animation.webp").exists()


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"layers": "conv9"}, hm.LayerError, "conv9"),
        ({"layer": "conv9"}, hm.LayerError, "conv9"),
        ({"target": 11}, hm.TargetError, "11"),
        ({"to": None}, hm.HookmapError, "nowhere to write"),
    ],
)
def test_what_is_wrong_from_the_start_is_raised_at_the_first_look(tmp_path, how, error, text):
    probe = Probe(PROBED, **{"to": tmp_path, **how})
    with pytest.raises(error, match=text):
        probe(NET, 0)


def test_arguments_that_make_no_sense_are_refused(tmp_path):
    for how in ({"every": 0}, {"budget": 0.0}, {"budget": 5}, {"to": 3}):
        with pytest.raises(hm.HookmapError, match=next(iter(how))):
            Probe(PROBED, **{"to": tmp_path, **how})


def test_models_that_a_look_would_start_or_cannot_hold_are_refused(tmp_path):
    lazy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(hm.ModelError, match="no shape before the first batch"):
        make(tmp_path)(lazy, 0)
    sharded = deepcopy(NET)
    sharded.conv1.weight.ds_id = 0  # as DeepSpeed marks them
    with pytest.raises(hm.ModelError, match="shared out over several processes"):
        make(tmp_path)(sharded, 0)


class Clock:
    """Stands still unless it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_leaves_out_looks_and_the_cost_is_said_once(tmp_path, monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr("hookmap.callbacks.cost.time.perf_counter", clock)
    probe = make(tmp_path, every=10, budget=0.2, animation=0)
    monkeypatch.setattr(probe, "_look_at_layers", lambda model, step: setattr(clock, "now", clock.now + 10))
    monkeypatch.setattr(probe, "_explain", lambda model, step: None)
    looked = []
    for step in range(301):
        looked += [step] if probe(NET, step) else []
        clock.now += 1
    # Two looks in 80 steps of training are a fifth of 100 seconds; each further one takes 40 steps.
    assert looked == [0, 80, 120, 160, 200, 240, 280]
    assert probe.cost.share <= 0.2
    said = capsys.readouterr().err
    assert said.count("hookmap:") == 1
    assert "10 s, as long as 10 training steps of 1 s" in said


def test_a_step_is_looked_at_once(tmp_path):
    with make(tmp_path, every=5) as probe:
        assert [probe(NET, step) for step in (0, 0, 1, 5, 5)] == [True, False, False, True, False]
    assert [event.step for event in logged(tmp_path).Images("heatmaps")] == [0, 5]
