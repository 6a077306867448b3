"""How long ``import hookmap`` takes next to ``import torch``: alternating fresh processes, medians."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds(module: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    times: dict[str, list[float]] = {"torch": [], "hookmap": []}
    for _ in range(9):
        for module, taken in times.items():
            taken.append(seconds(module))
    ratio = statistics.median(times["hookmap"]) / statistics.median(times["torch"])
    print(f"import hookmap takes {ratio:.2f} times import torch")
