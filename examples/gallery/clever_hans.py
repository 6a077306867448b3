"""
A network that cheats
=====================

Four in ten squares of the training pictures have a watermark in the corner. The network learns the watermark, and a run
over new pictures gives it away: heatmaps in clusters, the most suspicious first.

The pictures and the network are those of ``examples/clever_hans.py``.
"""

import sys
import tempfile
from pathlib import Path

from hookmap.analysis import class_means, clusters

sys.path.insert(0, "..")
from clever_hans import explained, train, write_pictures

folder = Path(tempfile.mkdtemp())
write_pictures(folder / "train", 100, 0.4, seed=0)
write_pictures(folder / "new", 50, 0.4, seed=1)
run = explained(train(folder / "train"), folder / "new", folder / "run")
print(run.table[["label", "prediction", "probability", "correct"]].head())

# %%
# Where each class is looked at, on average:

class_means(run).save("means.png")

# %%
# And what is explained alike, within each class:

clusters(run).save("clusters.png")
