"""Hooks in, maps out: feature maps of any layer and heatmaps of any decision of a PyTorch vision model.

>>> import hookmap as hm
>>> lens = hm.Lens("efficientnet_lite0")
>>> heatmap = lens.explain("examples/photos/cat.jpg")[0]
>>> heatmap.target, tuple(heatmap.raw.shape), tuple(heatmap.map.shape)
('tiger cat', (7, 7), (300, 451))
"""

from typing import Any

import lazy_loader

__version__ = "0.2.0"

# The names stand in __init__.pyi; a module is imported when one of its names is first used.
_imported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name in __all__ or name.startswith("_"):
        return _imported(name)
    from hookmap._names import unknown

    raise AttributeError(unknown(name, __all__), name=name)
