"""Write docs/methods.md from the registry: a thumbnail, what each method needs and what it costs.

``python docs/make_methods.py --draw`` draws the thumbnails again, ``--measure`` measures the costs too (some ten
minutes on two cores); without them, only the page is written again from docs/methods.json and the registry.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hookmap.methods import INGREDIENTS, METHODS, Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from hookmap import Explanation, Heatmap

DOCS = Path(__file__).resolve().parent
PAGE, COSTS, PICTURES = DOCS / "methods.md", DOCS / "methods.json", DOCS / "images" / "methods"
PHOTO = DOCS.parent / "examples" / "photos" / "cat.jpg"
LAYER, HEAD_LAYER = "blocks.6", "bn2"
_FAMILIES = {
    "gradient": "Gradient",
    "activation": "Activation only (no target)",
    "replay": "By replay of what follows the layer",
    "masking": "By masking the input",
    "whole model": "The whole model",
    "relevance": "Relevance",
    "baseline": "Baselines: what a method must be better than",
}
_HEADINGS = ("method", "shows", "needs", "forwards", "signed", "paper")
_INTRO = """# Methods

All {count} methods by name, for `lens.explain(image, method=...)` and `hookmap explain --method ...`; `all` takes every
one that is defined for the model. Written from the registry by `docs/make_methods.py`.

- **Shows** is the photo's predicted class, "tiger cat", at the same layer of the embedded network (`{layer}`; CAM at
  `{head}`, which its definition needs).
- **Forwards** is the time in plain forward passes of that network, measured alone in one run; methods that are asked
  for together share what they need. A budget (`budget=256`) bounds methods that mask.
- **By default** the method is Grad-CAM where all places of the layer are treated alike by what follows, as the gradient
  shows, else HiResCAM; for detections ODAM, for embeddings and places in dense scores HiResCAM.
- **Signed**: a negative value means that the place speaks against the target (`part="negative"` shows it).

Any of them can be combined with `aug_smooth=True`, `noise_smooth=25`, `eigen_smooth=True`, several layers with
`fuse="mean"`, `"max"`, `"product"` or `"layercam"`, and a target that asks "why this and not that":
`hm.Contrast("tiger cat", "tabby")`. Your own takes three lines:

```python
@hm.method
def mycam(activation, gradient):
    return (activation * gradient.abs()).sum(1)
```
"""


def page(costs: dict[str, float]) -> str:
    """The page as Markdown."""
    lines = [_INTRO.format(count=len(METHODS), layer=LAYER, head=HEAD_LAYER)]
    for family, title in _FAMILIES.items():
        lines += [f"## {title}", "", "| | " + " | ".join(_HEADINGS) + " |", "|---|---|---|---|--:|---|---|"]
        for method in METHODS.values():
            if method.family == family:
                lines.append(_row(method, costs.get(method.name)))
        lines.append("")
    return "\n".join(lines)


def _row(method: Method, cost: float | None) -> str:
    picture = "" if cost is None else f"![{method.title}](images/methods/{method.name}.jpg)"
    needs = ", ".join(dict.fromkeys(i.price for i in INGREDIENTS.values() if i.price and i in method.ingredients))
    # Which order of magnitude it is can be told from one run; more digits can't.
    price = "" if cost is None else f"{cost:.2g}" if cost < 10 else f"{float(f'{cost:.1g}'):,.0f}"
    signed = "yes" if method.signed else "no"
    name = f"**{method.title}**<br>`{method.name}`"
    return f"| {' | '.join((picture, name, method.summary, needs or '-', price, signed, method.paper or '-'))} |"


def draw() -> dict[str, Callable[..., Explanation]]:
    """Draw each method's thumbnail; gives how each was asked for."""
    import hookmap as hm

    warnings.simplefilter("ignore", hm.HookmapWarning)
    lens = hm.Lens("efficientnet_lite0", device="cpu")
    PICTURES.mkdir(parents=True, exist_ok=True)
    asked = {}
    for method in METHODS.values():
        layer = HEAD_LAYER if "head" in method.needs else LAYER
        explain = partial(lens.explain, PHOTO, layer=layer, method=method.name, progress=False)
        try:
            shown = explain(budget=1000)[0]
        except hm.TargetError:  # it isn't for classifiers
            continue
        _seen(shown).save(PICTURES / f"{method.name}.jpg", quality=88)
        asked[method.name] = explain
    return asked


def measure(asked: dict[str, Callable[..., Explanation]]) -> dict[str, float]:
    """The time of each method, in forward passes."""
    import torch

    import hookmap as hm

    lens = hm.Lens("efficientnet_lite0", device="cpu")
    x = lens.engine.example()
    with torch.no_grad():
        forward = statistics.median(_seconds(lambda: lens.model(x)) for _ in range(30))
    costs = {}
    for name, explain in asked.items():
        first = _seconds(explain)
        costs[name] = statistics.median([_seconds(explain) for _ in range(9)] if first < 1 else [first]) / forward
        print(f"{name:20} {costs[name]:8.1f}", file=sys.stderr)
    return costs


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _seen(heatmap: Heatmap) -> Image.Image:
    """The part of the overlay that the model saw."""
    left, top, right, bottom = heatmap.geometry.seen
    return heatmap.overlay().crop((round(left), round(top), round(right), round(bottom))).resize((120, 120))


def main() -> None:
    """Write the page."""
    asked = draw() if {"--draw", "--measure"} & {*sys.argv} else {}
    if "--measure" in sys.argv:
        COSTS.write_text(json.dumps(measure(asked), indent=1) + "\n")
    PAGE.write_text(page(json.loads(COSTS.read_text())))


if __name__ == "__main__":
    main()
