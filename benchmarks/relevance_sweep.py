"""Does relevance add up to the score? Every family of torchvision and timm, in float64, with biases that do something.

Run: ``python benchmarks/relevance_sweep.py [--composite zero] [NAME ...]``; prints a line per architecture, those that
don't close with the nodes at which relevance ended, and the share that closes.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

from hookmap import relevance
from hookmap.errors import HookmapError, first_line
from hookmap.hooks.preserve import preserved

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "tests" / "layers")]
from test_sweep import EVERY, MOST_PARAMETERS, build  # noqa: E402


def stirred(model: nn.Module) -> nn.Module:
    """Biases and batch-norm statistics as of a trained model: not zero and one."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(getattr(module, "bias", None), nn.Parameter):
                module.bias.add_(torch.randn(module.bias.shape, generator=generator), alpha=0.1)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                spread = module.running_var.sqrt()
                module.running_mean.add_(0.3 * spread * torch.randn(len(spread), generator=generator))
    return model.double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--composite", default="ZERO", help="ZERO, LRP, ATTNLRP or EPSILON_PLUS_FLAT")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    composite = getattr(relevance, options.composite)
    closed, open_ = 0, []
    for name in options.names or EVERY:
        start = time.process_time()
        try:
            model, x = build(name)
            if sum(p.numel() for p in model.parameters()) > MOST_PARAMETERS:
                print(f"{name}: too large, left out", flush=True)
                continue
            model = stirred(model)
            with preserved(model):
                (account,) = relevance.relevance(model, x.double(), lambda output: output[:, 3], composite).accounts
        except (HookmapError, RuntimeError, TypeError, AttributeError) as error:
            said = f"{type(error).__name__}: {first_line(error)}"
            open_.append(name)
        else:
            said = f"{account}, {', '.join(sorted(set(account.suspects))[:6])}"
            closed += account.error <= 1e-6
            if account.error > 1e-6:
                open_.append(name)
        mark = " OPEN" if name in open_ else ""
        print(f"{name}{mark}: {said} [{time.process_time() - start:.0f} s]", flush=True)
    print(f"closes: {closed} of {closed + len(open_)}; not: {' '.join(open_)}")


if __name__ == "__main__":
    main()
