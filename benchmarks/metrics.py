"""What metrics cost: hookmap, Quantus, torch-cam, pytorch-grad-cam and Captum, in floors.

The floor of a metric is the time of the same number of plain forward passes of the model, at the fastest of a few
batch sizes and memory layouts: what nobody who runs the model as it is can fall below. One process, alternating,
medians. Run: ``python benchmarks/metrics.py [--only TEXT] [--rounds 5]``.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import hookmap as hm
from hookmap.attribution.explain import asked_again
from hookmap.attribution.scoring import Scoring
from hookmap.metrics import deletion, insertion, road
from hookmap.metrics.evidence import random_removals, single_deletions

PHOTO = Path(__file__).resolve().parents[1] / "examples" / "photos" / "cat.jpg"
STEPS = 49
Run = Callable[[], object]


@dataclass
class Job:
    """A metric of one map.

    Attributes:
        name: of the metric.
        goal: the most floors it may take, or None.
        passes: how many forward passes make its floor.
        runs: by contender.
    """

    name: str
    goal: float | None
    passes: int
    runs: dict[str, Run]


class Bench:
    """The embedded model, a photo, its heatmap."""

    def __init__(self) -> None:
        self.lens = hm.Lens(device="cpu")
        self.model = self.lens.model.eval()
        self.heatmap = self.lens.explain(PHOTO)[0]
        _, batch, plan = asked_again(self.lens.engine, self.heatmap)
        self.x = batch.x
        self.image = batch.x[0]
        self.index = int(self.heatmap.index or 0)
        self.scoring = Scoring(self.lens.engine, batch.x)
        self.scorer = self.scoring.of(batch[0], plan.targets[0])[0]
        self.maps = self.heatmap.raw[None]
        self.pixels = torch.nn.functional.interpolate(self.maps[None], (224, 224), mode="bilinear")[0, 0].numpy()
        self.size, self.layout, self.forward = min(
            (
                (size, layout, self._seconds(size, layout))
                for size in (4, 8, 16, 32)
                for layout in (torch.contiguous_format, torch.channels_last)
            ),
            key=lambda row: row[2],
        )

    def _seconds(self, size: int, layout: torch.memory_format) -> float:
        x = self.x.expand(size, -1, -1, -1).contiguous(memory_format=layout)
        with torch.inference_mode():
            return min(_timed(lambda: self.model(x)) for _ in range(4)) / size

    def plain(self, passes: int) -> Run:
        x = self.x.expand(self.size, -1, -1, -1).contiguous(memory_format=self.layout)

        def run() -> None:
            with torch.inference_mode():
                for start in range(0, passes, self.size):
                    self.model(x[: min(self.size, passes - start)])

        return run

    def jobs(self) -> list[Job]:
        given = {"batch_size": self.scoring.batch_size}
        scorer, image, maps = self.scorer, self.image, self.maps
        nine = 2 * 9 + 2
        return [
            Job(
                "deletion, 49 steps",
                1.05,
                STEPS + 1,
                {
                    "hookmap": lambda: deletion(scorer, image, maps, cells=7, steps=STEPS, **given),
                    "Quantus RegionPerturbation": self.quantus("RegionPerturbation"),
                    "Quantus PixelFlipping": self.quantus("PixelFlipping"),
                },
            ),
            Job(
                "deletion and insertion, 49 steps each",
                1.05,
                2 * (STEPS + 1),
                {
                    "hookmap": lambda: [
                        metric(scorer, image, maps, fill="zero", cells=7, steps=STEPS, **given)
                        for metric in (deletion, insertion)
                    ],
                    "torch-cam": self.torch_cam(),
                },
            ),
            Job(
                "ROAD combined, 10 steps",
                1.3,
                nine,
                {"hookmap": lambda: road(scorer, image, maps, **given), "pytorch-grad-cam": self.grad_cam_road()},
            ),
            Job(
                "shared evidence",
                None,
                49 + 256 + 2,
                {
                    "hookmap": lambda: (
                        single_deletions(scorer, image, **given),
                        random_removals(scorer, image, **given),
                    )
                },
            ),
            Job("infidelity, 256 masks", None, 257, {"Captum": self.captum()}),
        ]

    def candidates(self) -> None:
        """What one map more costs, once the evidence is there."""
        evidence = random_removals(self.scorer, self.image, batch_size=self.scoring.batch_size)
        for grid in (7, 14, 28):
            maps = torch.rand(1000, grid, grid)
            seconds = min(_timed(lambda maps=maps: evidence.agreement(maps)) for _ in range(5))
            print(f"agreement of a map {grid}x{grid} with the evidence: {seconds:.3f} ms (1,000 together)")

    # ---------------------------------------------------------------- peers

    def quantus(self, name: str) -> Run:
        import quantus

        options: dict[str, object] = {"disable_warnings": True, "display_progressbar": False}
        if name == "RegionPerturbation":
            options |= {"patch_size": 32, "regions_evaluation": STEPS, "perturb_baseline": "mean"}
        else:
            options |= {"features_in_step": 224 * 224 // STEPS, "perturb_baseline": "mean"}
        metric = getattr(quantus, name)(**options)
        x, y, a = self.x.numpy(), np.array([self.index]), self.pixels[None, None]
        return lambda: metric(model=self.model, x_batch=x, y_batch=y, a_batch=a, device="cpu", softmax=True)

    def torch_cam(self) -> Run:
        from torchcam.methods import GradCAM
        from torchcam.metrics import DeletionInsertionMetric

        def run() -> object:
            with GradCAM(self.model, self.heatmap.layer) as extractor:
                metric = DeletionInsertionMetric(
                    extractor, lambda scores: scores.softmax(1), steps=STEPS, batch_size=self.size
                )
                metric.update(self.x.clone(), self.index)
                return metric.summary()

        return run

    def grad_cam_road(self) -> Run:
        from pytorch_grad_cam.metrics.road import ROADCombined
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

        metric = ROADCombined(percentiles=list(range(10, 100, 10)))
        targets = [ClassifierOutputSoftmaxTarget(self.index)]
        return lambda: metric(self.x, self.pixels[None], targets, self.model)

    def captum(self) -> Run:
        from captum.metrics import infidelity

        attribution = torch.from_numpy(self.pixels).expand(1, 3, -1, -1)

        def perturbed(x: Tensor) -> tuple[Tensor, Tensor]:
            gone = (torch.rand(len(x), 1, 7, 7) < 0.5).float().repeat_interleave(32, 2).repeat_interleave(32, 3)
            return gone.expand_as(x), x * (1 - gone)

        def run() -> object:
            with torch.no_grad():
                return infidelity(
                    self.model,
                    perturbed,
                    self.x,
                    attribution,
                    target=self.index,
                    n_perturb_samples=256,
                    max_examples_per_batch=self.size,
                )

        return run


def _timed(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Time the jobs and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    bench = Bench()
    layout = "channels last" if bench.layout is torch.channels_last else "channels first"
    print(f"floor: {1000 * bench.forward:.1f} ms a forward pass, {layout}, batches of {bench.size}")
    print(f"hookmap's own batches: {bench.scoring.batch_size}; {torch.get_num_threads()} threads")
    table = Table("metric", "floors", "contender", "goal")
    for job in bench.jobs():
        if given.only not in job.name:
            continue
        runs = {"floor": bench.plain(job.passes), **job.runs}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(given.rounds + 1):
            for name, run in runs.items():
                if name not in times:
                    continue
                try:
                    seconds = _timed(run)
                except Exception as error:
                    print(f"{job.name}, {name}: {type(error).__name__}: {error}")
                    del times[name]
                    continue
                if turn:  # the first is to get warm
                    times[name].append(seconds)
        floor = statistics.median(times.pop("floor"))
        for name, seconds in times.items():
            goal = f"<= {job.goal}" if name == "hookmap" and job.goal else ""
            table.add_row(job.name, f"{statistics.median(seconds) / floor:.2f}", name, goal)
    Console().print(table)
    bench.candidates()


if __name__ == "__main__":
    main()
