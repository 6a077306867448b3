"""What a run over a data set reveals: means, places, confusions, clusters, channels, and two runs side by side.

Every function takes a :class:`hookmap.runs.results.Run` and gives a result that holds tables and arrays, draws
itself as a page (``figure()``) and saves it (``save("page.png")``). No network is needed. A question that the run has
no answer to, because it lacks heatmaps, labels or channels, raises a :class:`NotApplicableError`.
"""

from hookmap.analysis.channel_atlas import ChannelAtlas, channel_atlas
from hookmap.analysis.clusters import Cluster, Clusters, clusters
from hookmap.analysis.comparison import Comparison, compare
from hookmap.analysis.confusion import Confusion, Confusions, confusions
from hookmap.analysis.focus import Focus, Outcomes, focus, outcomes
from hookmap.analysis.frames import NotApplicableError
from hookmap.analysis.means import ClassMeans, class_means
from hookmap.analysis.places import Places, places

__all__ = [
    "ChannelAtlas",
    "ClassMeans",
    "Cluster",
    "Clusters",
    "Comparison",
    "Confusion",
    "Confusions",
    "Focus",
    "NotApplicableError",
    "Outcomes",
    "Places",
    "channel_atlas",
    "class_means",
    "clusters",
    "compare",
    "confusions",
    "focus",
    "outcomes",
    "places",
]
