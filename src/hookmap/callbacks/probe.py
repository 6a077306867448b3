"""A fixed set of images that a model is asked about again and again while it trains."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hookmap.attribution.planning import MethodSpec
from hookmap.callbacks.cost import Cost
from hookmap.callbacks.heatmaps import caption, explained, in_small, named_apart
from hookmap.callbacks.history import HeatmapHistory
from hookmap.callbacks.layers import look_at_layers
from hookmap.callbacks.undisturbed import undisturbed
from hookmap.errors import HookmapError, HookmapWarning, ModelError, first_line
from hookmap.hooks.matching import LayerSpec
from hookmap.hooks.registration import unwrapped
from hookmap.images.loading import load_all
from hookmap.images.views import View, is_input
from hookmap.layers.layouts import Layout
from hookmap.lens import Lens
from hookmap.loggers.animation import Animation
from hookmap.loggers.logger import Logger, loggers_from
from hookmap.render.figure import contact_sheet
from hookmap.results.heatmap import Heatmap
from hookmap.targets import PREDICTED, TargetSpec

if TYPE_CHECKING:
    from PIL import Image


class Probe:
    """Every so many steps, the heatmaps and layers of the same images; at the end, an animation of the heatmaps.

    The training is bit for bit what it would be without: the model's weights, gradients, buffers and modes, all random
    generators and autocast stay as they are. A look costs about two forward passes of the images, one of them with a
    part of the backward pass, and the drawing.

    Args:
        images: paths, pictures, or a floating-point tensor ``(B, C, H, W)`` that is already preprocessed; 4 to 16 are
            plenty. They are read once.
        to: where to: a TensorBoard folder or ``SummaryWriter``, ``hm.TensorBoard``, ``hm.WandB``, ``hm.MLflow``, or a
            list of these. :class:`hookmap.LightningProbe` and
            :class:`hookmap.TransformersProbe` find the trainer's own.
        every: look at every step that this divides.
        target: as in :meth:`hookmap.Lens.explain`. Animations can be compared where it is fixed:
            ``hm.PerImage(labels)``.
        layer: where the heatmaps are taken; by default the best layer at the first look, and that one from then on.
        method: of the heatmaps; by default Grad-CAM.
        layers: whose statistics and feature maps are noted; by default up to four from input to output.
        animation: how many moments it has at most; beyond that every second one is let go. 0: no animation.
        budget: the largest share of the time that looking may take, 0..1: looks that would exceed it are left out, so
            that the steps depend on the machine's speed. By default every one is taken.
        preprocessing: from image to input; as for :class:`hookmap.Lens`, like ``labels`` and ``layouts``.
        labels: class names.
        layouts: how to read layers that can't be read from their shape.
        batch_size: images per forward pass.

    What is wrong with these arguments is raised at once, or by the first look. If a later one fails, training goes on,
    with one warning. Only the process of rank 0 looks.

    >>> import hookmap as hm
    >>> from hookmap.callbacks import Probe
    >>> lens = hm.Lens("efficientnet_lite0")
    >>> probe = Probe("examples/photos/cat.jpg", "runs/cat", every=50, preprocessing=lens.preprocessing)
    >>> [step for step in range(200) if probe.is_due(step)]
    [0, 50, 100, 150]
    """

    def __init__(
        self,
        images: Any,
        to: Any = None,
        *,
        every: int = 100,
        target: TargetSpec | Sequence[TargetSpec] | Tensor = PREDICTED,
        layer: LayerSpec | None = None,
        method: MethodSpec | None = None,
        layers: LayerSpec | None = None,
        animation: int = 120,
        budget: float | None = None,
        preprocessing: Any = None,
        labels: Sequence[str] | None = None,
        layouts: Mapping[str, Layout] | None = None,
        batch_size: int = 16,
    ) -> None:
        if every < 1:
            raise HookmapError(f"every is {every}; expected a number of steps, 1 or more")
        if budget is not None and not 0 < budget <= 1:
            raise HookmapError(f"budget is {budget}; expected a share of the time, above 0 and up to 1, or None")
        self.every = every
        self.cost = Cost()
        self._images = _kept(images) if is_input(images) else load_all(images)
        self._loggers: list[Logger] = [] if to is None else loggers_from(to)
        self._question: dict[str, Any] = {"target": target, "layer": layer, "method": method}
        self._layers = layers
        self._history = HeatmapHistory(animation) if animation else None
        self._budget = budget
        self._known: dict[str, Any] = {"preprocessing": preprocessing, "labels": labels, "layouts": layouts}
        self._batch_size = batch_size
        self._lens: Lens | None = None
        self._model: nn.Module | None = None
        self._latest: tuple[nn.Module, int, int] | None = None
        self._views: list[View] = []
        self._channels: dict[str, list[int]] = {}
        self._first: int | None = None
        self._last: int | None = None
        self._warned = self._said = False

    # ---------------------------------------------------------------- in a training loop

    def __call__(self, model: nn.Module, step: int) -> bool:
        """Look at the model if this step is due; returns whether it was. Call it at every step.

        Args:
            model: as it is in the loop, also wrapped by DistributedDataParallel or ``torch.compile``.
            step: the number of optimizer steps so far.
        """
        self._latest = (model, step, _writes(model)) if _leads() else None
        if not self.is_due(step):
            return False
        self.look(model, step)
        return True

    def is_due(self, step: int) -> bool:
        """Whether this step is looked at: it is a multiple of ``every``, within the budget, and wasn't yet."""
        if step % self.every or step == self._last or not _leads():
            return False
        return self._budget is None or not self.cost.looks or self.cost.allows(self._budget)

    def look(self, model: nn.Module, step: int) -> None:
        """Look at the model now, whether or not the step is due.

        Raises:
            HookmapError: at the first look only: for a model, a layer, a target or images that don't go together, or
                if there's nowhere to write to.
        """
        if not _leads():
            return
        with self.cost.looked_at(step):
            first, self._last = self._last is None, step
            self._first = step if first else self._first
            parameter = next(model.parameters(), None)
            with undisturbed(parameter.device if parameter is not None else torch.device("cpu")):
                self._attempt(lambda: self._look_at_layers(model, step), step, first)
                self._attempt(lambda: self._explain(model, step), step, first)
                if self.cost.looks:
                    # The first look also has to find the layers; it says little about the cost.
                    figures = {"probe/seconds": self.cost.last, "probe/share of time": self.cost.share}
                    self._attempt(lambda: self._log(lambda logger: logger.scalars(figures, step)), step, first)
        if self.cost.looks == 2 and not self._said:
            self._said = True
            print(f"hookmap: {self.cost}", file=sys.stderr)

    def finish(self, model: nn.Module, step: int) -> None:
        """Look at the model as it ends, unless it was looked at in this step, and close."""
        if step != self._last:
            self.look(model, step)
        self.close()

    def close(self) -> None:
        """Write the animation and let the loggers write out what they hold; those that you opened stay open."""
        with undisturbed(torch.device("cpu")):
            step = self._last or 0
            looked = self._lens is not None and self._history is not None and len(self._history) > 1
            if looked and self._loggers:
                self._attempt(lambda: self._write_animation(step), step, False)
            for logger in self._loggers:
                self._attempt(logger.close, step, False)
        self._lens = self._model = self._latest = None

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._latest is not None and error is None:
            model, step, writes = self._latest
            self.finish(model, step + (_writes(model) != writes))  # a training step may have come after the last call
        else:
            self.close()

    @property
    def animation(self) -> Animation:
        """The heatmaps so far; ``.save("cat.webp")`` writes them wherever you like, also when the probe is closed.

        Raises:
            HookmapError: before the first look, or with ``animation=0``.
        """
        if self._history is None or not len(self._history):
            raise HookmapError("there's no animation: the model wasn't looked at yet, or animation is 0")
        return self._history.animated()

    def log_to(self, to: Any) -> None:
        """Name the loggers, unless they were named before; as ``to`` of :class:`Probe`."""
        if not self._loggers:
            self._loggers = loggers_from(to)

    # ---------------------------------------------------------------- how it is done

    def _look_at_layers(self, model: nn.Module, step: int) -> None:
        layers = look_at_layers(*self._lens_of(model), self._layers, self._batch_size)
        # The same channels at every step, those of layers that come later too.
        self._channels = {**layers.liveliest(), **self._channels}
        subtitle = f"{layers.picture.name}; channels were chosen at step {self._first:,}"
        page = layers.page(f"step {step:,}", subtitle, self._channels)
        values = layers.scalars()
        self._log(lambda logger: logger.scalars(values, step))
        self._log(lambda logger: logger.image(f"features/{layers.picture.name}", page, step))

    def _explain(self, model: nn.Module, step: int) -> None:
        lens, views = self._lens_of(model)
        small = in_small(explained(lens, views, batch_size=self._batch_size, **self._question))
        if self._history is not None:
            self._history.add(step, small)
        # Of several heatmaps of an image the first.
        sure = {f"probability/{h.picture.name}": h.probability for h in reversed(small) if h.probability is not None}
        silent = {"heatmaps/without evidence": float(sum(heatmap.evidence != "some" for heatmap in small))}
        self._log(lambda logger: logger.scalars(sure | silent, step))
        if small:
            page = _page(small)
            self._log(lambda logger: logger.image("heatmaps", page, step))

    def _write_animation(self, step: int) -> None:
        animation = self.animation
        self._log(lambda logger: logger.animation("animation", animation, step))

    def _lens_of(self, model: nn.Module) -> tuple[Lens, list[View]]:
        """The lens of the model, which keeps what it found out at the first look, and the images as it sees them."""
        inner = unwrapped(model)
        if self._lens is None or self._model is not inner:
            _check_whole(inner)
            lens = Lens(inner, **self._known)
            self._views = named_apart([view for batch in lens.engine.batches(self._images, 1) for view in batch.views])
            self._lens, self._model = lens, inner
        return self._lens, self._views

    def _log(self, write: Callable[[Logger], None]) -> None:
        if not self._loggers:
            raise HookmapError("the probe has nowhere to write to; pass to='runs/probe', or hm.WandB() or hm.MLflow()")
        for logger in self._loggers:
            write(logger)

    def _attempt(self, do: Callable[[], None], step: int, first: bool) -> None:
        try:
            do()
        except Exception as error:
            if first and isinstance(error, HookmapError):
                raise
            if not self._warned:
                self._warned = True
                reason = first_line(error)
                warnings.warn(
                    f"the probe failed at step {step} ({type(error).__name__}: {reason}); training goes on, and "
                    "later failures are not reported",
                    HookmapWarning,
                    stacklevel=4,
                )


def _page(heatmaps: Sequence[Heatmap]) -> Image.Image:
    return contact_sheet(
        [(h.overlay(), caption(h), f"{h.picture.name}, {h.method.title} at {h.layer}") for h in heatmaps]
    )


def _kept(images: Any) -> Any:
    """Inputs of our own: a loader may use the memory of a batch again."""
    if isinstance(images, Tensor):
        return images.detach().clone()
    return [tensor.detach().clone() for tensor in images]


def _writes(model: nn.Module) -> int:
    """How often the parameters were written to: it grows with each training step."""
    return sum(parameter._version for parameter in model.parameters())


def _leads() -> bool:
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def _check_whole(model: nn.Module) -> None:
    """Raise a :class:`ModelError` where one process can't run the model on its own, or a look would initialise it."""
    sharded = any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ModelError(
                f"parameter {name!r} has no shape before the first batch, and the look would draw its random start; "
                "run one batch through the model before the training starts"
            )
        # Those of PyTorch's newer sharding and tensor parallelism, and of DeepSpeed's.
        sharded |= type(parameter).__name__ == "DTensor" or hasattr(parameter, "ds_id")
    if sharded:
        raise ModelError(
            "the model's parameters are shared out over several processes (FSDP, tensor parallel or ZeRO-3), and the "
            "probe runs in one; look at its checkpoints with hm.Lens instead"
        )
