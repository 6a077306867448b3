"""Run a model again from a layer on, with changed activations, at the price of what follows the layer.

The hook at the layer swaps in K variants of one sample's activation, so what comes before need not know of
them. It runs on as few samples as the wiring allows: on none where nothing of it is needed later (a pass over
an empty batch costs only its calls), on the one sample where something meets the variants by broadcasting (a
residual connection), and on the sample repeated K times where that doesn't work either (a concatenation).
What works is found at the first replay and kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hookmap._devices import out_of_memory
from hookmap._nested import map_tensors, tensors_in
from hookmap.hooks.registration import hooked

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class Replay:
    """Replays of one call of one layer, sample by sample.

    Args:
        model: as it was captured.
        inputs: of the captured pass.
        module: the layer.
        recorded: its activation in that pass, with the samples first: ``(B, ...)``.
        output: the model's output in that pass. A way to run the prefix is trusted once the recorded
            activation, replayed that way, gives this output again.
        call: which call of the layer is changed.
        axis: along which the layer holds its samples.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, module: nn.Module, recorded: Tensor, output: Any, call: int, axis: int
    ) -> None:
        self._model = model
        self._inputs = inputs
        self._module = module
        self._recorded = recorded.detach()
        self._output = output
        self._call = call
        self._axis = axis
        self._samples = [0, 1]  # ways to run the prefix that are left to try
        self._proven = False

    def __call__(self, changed: Tensor, sample: int) -> Any:
        """The model's output for K variants ``(K, ...)`` of a sample's activation."""
        while self._samples:
            rows = self._rows(sample, self._samples[0])
            try:
                if self._proven and len(changed) > 1:
                    return self._rerun(rows, changed)
                known = self._recorded[sample : sample + 1].to(changed.dtype)
                output = self._rerun(rows, torch.cat([changed, known]))
                if self._gives_again(output, len(changed), sample):
                    self._proven = True
                    return map_tensors(lambda _, t: t[:-1], output)
            except Exception as error:
                # What isn't about the number of samples, a bug of the model's say, is raised by the last way too.
                if self._proven or out_of_memory(error):
                    raise
            del self._samples[0]
        return self._rerun(self._rows(sample, len(changed)), changed)

    def _rerun(self, inputs: Inputs, changed: Tensor) -> Any:
        return rerun(self._model, inputs, self._module, changed, self._call, self._axis)

    def _gives_again(self, output: Any, last: int, sample: int) -> bool:
        before, after = tensors_in(self._output), tensors_in(output)
        if not after or after.keys() != before.keys():
            return False
        for key, tensor in after.items():
            true = before[key]
            if tensor.shape != (last + 1, *true.shape[1:]) or true.shape[0] != len(self._recorded):
                return False
            wanted, got = true[sample].double(), tensor[last].double()
            half = true.dtype in (torch.float16, torch.bfloat16)
            tolerance = (0.05 if half else 1e-3) * float(wanted.abs().max()) + 1e-12
            if not bool(((wanted - got).abs() <= tolerance).all()):
                return False
        return True

    def _rows(self, sample: int, times: int) -> Inputs:
        """One sample of the batched inputs, repeated; inputs without the batch axis stay."""

        def row(_: str, tensor: Tensor) -> Tensor:
            if tensor.ndim == 0 or tensor.shape[0] != len(self._recorded):
                return tensor
            return tensor[sample : sample + 1].repeat(times, *[1] * (tensor.ndim - 1))

        inputs: Inputs = map_tensors(row, self._inputs)
        return inputs


def rerun(model: nn.Module, inputs: Inputs, module: nn.Module, changed: Tensor, call: int, axis: int = 0) -> Any:
    """The model's output with the main tensor of one call of a module changed.

    Nothing is differentiated but, where ``changed`` requires a gradient, what follows the module.

    Args:
        model: the model.
        inputs: that it is called on.
        module: a layer of it.
        changed: what stands in the place of the layer's output, with the samples first.
        call: which call of the layer is changed.
        axis: along which the layer holds its samples.
    """
    calls = 0

    def swap(_: nn.Module, __: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls - 1 != call:
            return None
        if changed.requires_grad:
            torch.set_grad_enabled(True)
        main = next(iter(tensors_in(output)))
        # A clone: a layer that works in place must not write into the caller's tensor.
        held = changed.movedim(0, axis)
        return map_tensors(lambda key, t: held.to(t.dtype, copy=True) if key == main else t, output)

    args, kwargs = inputs
    with hooked([module], swap), torch.no_grad():
        return model(*args, **kwargs)
