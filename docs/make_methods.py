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

    from hookmap import Explanation, Heatmap, Lens

DOCS = Path(__file__).resolve().parent
PAGE, COSTS, PICTURES = DOCS / "methods.md", DOCS / "methods.json", DOCS / "images" / "methods"
PHOTO = DOCS.parent / "examples" / "photos" / "cat.jpg"
COFFEE = PHOTO.with_name("coffee.jpg")
LAYER, HEAD_LAYER = "blocks.6", "bn2"
# A trained ViT-S/14, for methods that read attention; the tests' README says where it comes from.
TRANSFORMER, TRANSFORMER_LAYER = (
    DOCS.parents[1] / "shared" / "weights" / "dinov2-small",
    "dinov2.encoder.layer.11.norm1",
)
_FAMILIES = {
    "gradient": "Gradient",
    "activation": "Activation only (no target)",
    "attention": "Attention (transformers)",
    "replay": "By replay of what follows the layer",
    "masking": "By masking the input",
    "pixels": "Gradients at the pixels",
    "whole model": "The whole model",
    "relevance": "Relevance",
    "baseline": "Baselines: what a method must be better than",
}
_HEADINGS = ("method", "shows", "needs", "forwards", "signed", "paper")
_INTRO = """# Methods

All {count} methods by name, for `lens.explain(image, method=...)` and `hookmap explain --method ...`; `all` takes every
one that is defined for the model. Written from the registry by `docs/make_methods.py`.

- **Shows** is the photo's predicted class, "tiger cat", at the same layer of the embedded network (`{layer}`; CAM at
  `{head}`, which its definition needs); for methods that read attention a cup of coffee, by a trained ViT-S/14.
- **Forwards** is the time in plain forward passes of that network, measured alone in one run; methods that are asked
  for together share what they need. A budget (`budget=256`) bounds methods that mask.
- **By default** the method is Grad-CAM where all places of the layer are treated alike by what follows, as the gradient
  shows, else HiResCAM; where class tokens read the places the value path; for detections ODAM, for embeddings and
  places in dense scores HiResCAM.
- **Signed**: a negative value means that the place speaks against the target (`part="negative"` shows it).

Any of them can be combined with `aug_smooth=True`, `noise_smooth=25`, `eigen_smooth=True`, several layers with
`fuse="mean"`, `"max"`, `"product"` or `"layercam"`, and a target that asks "why this and not that":
`hm.Contrast("tiger cat", "tabby")`. `rivals=3` lets the three most probable other classes compete for each place (VAR,
Walter et al. 2025, arXiv:2503.07346): what speaks for them as much goes. `libra=True` balances the gradients of methods
that have one ([LibraGrad](guides/relevance.md)). Your own takes three lines:

```python
@hm.method
def mycam(activation, gradient):
    return (activation * gradient.abs()).sum(1)
```

Left out: **DeepLIFT**. By Captum 0.9 it added up to the score's difference for 7 of 20 networks of torchvision and timm
(VGG, RegNet, RepVGG, timm's ResNet and DenseNet), raised an error for 3 and gave a wrong map without a word for 10:
those with GELU, SiLU, ReLU6 or activations that are functions. Integrated gradients add up for all.
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
    lens, transformer = _lenses()
    PICTURES.mkdir(parents=True, exist_ok=True)
    asked = {}
    for method in METHODS.values():
        layer = HEAD_LAYER if "head" in method.needs else LAYER
        asked_of, photo = lens, PHOTO
        if method.family == "attention":
            asked_of, photo, layer = transformer, COFFEE, TRANSFORMER_LAYER
        explain = partial(asked_of.explain, photo, layer=layer, method=method.name, progress=False)
        try:
            shown = explain(budget=None if method.family == "pixels" else 1000)[0]
        except hm.TargetError:  # it isn't for classifiers
            continue
        _seen(shown).save(PICTURES / f"{method.name}.jpg", quality=88)
        asked[method.name] = explain
    return asked


def _lenses() -> list[Lens]:
    import hookmap as hm

    return [hm.Lens("efficientnet_lite0", device="cpu"), hm.Lens(str(TRANSFORMER), device="cpu")]


def measure(asked: dict[str, Callable[..., Explanation]]) -> dict[str, float]:
    """The time of each method, in forward passes."""
    import torch

    forwards = []
    for lens in _lenses():
        x = lens.engine.example()
        with torch.no_grad():
            forwards.append(statistics.median(_seconds(partial(lens.model, x)) for _ in range(30)))
    costs = {}
    for name, explain in asked.items():
        forward = forwards[METHODS[name].family == "attention"]
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
