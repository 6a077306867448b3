"""The blocks of a transformer: a row of layers with one attention each, and tokens of one shape between them."""

from __future__ import annotations

from collections.abc import Sequence

from hookmap.errors import LayerError
from hookmap.layers.trace import Trace


def blocks_of(traced: Trace, attentions: Sequence[str], what: str) -> list[str]:
    """The names of the blocks, first to last: children of the module that holds all attentions, one in each.

    Args:
        traced: the model's layers.
        attentions: names of the layers that attend, in the order in which they run.
        what: is asked for, for the sentence where there are none.

    Raises:
        LayerError: if the model isn't built so.
    """
    parts = [name.split(".") for name in attentions]
    same = 0
    while parts and all(len(one) > same and one[same] == parts[0][same] for one in parts):
        same += 1
    names = [".".join(one[: same + 1]) for one in parts]
    kinds = {(info.shape, info.layout) for info in map(traced.info, names) if info.calls == 1}
    one_each = len(names) > 1 and len({*names}) == len(names) == sum(traced.info(name).calls for name in names)
    layout = next(iter(kinds))[1] if one_each and len(kinds) == 1 else None
    if layout is None or layout.order != "tokens":
        found = "no attention" if not names else f"attention in {', '.join(attentions[:3])}{' ...' * (len(names) > 3)}"
        raise LayerError(
            f"{what} needs a transformer of several blocks with one attention each and the same tokens throughout, and "
            f"this model has {found}"
        )
    return names
