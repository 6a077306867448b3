"""Heatmap methods: pure functions of tensors, and their table.

A method is a function whose parameters say what it needs, each by a word of :data:`INGREDIENTS`; hookmap gathers that
once for all methods that are asked for together. Your own takes three lines::

    @hookmap.method
    def mycam(activation, gradient):
        return (activation * gradient.abs()).sum(1)

and is then ``lens.explain(image, method="mycam")``.
"""

from __future__ import annotations

from hookmap.adapters.outputs import Form
from hookmap.methods import baselines, eigen, fullgrad, gradient, masking, replaying
from hookmap.methods.registry import BUILT_IN, INGREDIENTS, METHODS, Method, as_method, find_method, method
from hookmap.methods.replaying import Probe
from hookmap.methods.weighting import WeightedSum, contributions, weighted_sum
from hookmap.render.look import Look

__all__ = [
    "INGREDIENTS",
    "METHODS",
    "Method",
    "Probe",
    "WeightedSum",
    "as_method",
    "baselines",
    "contributions",
    "default_method",
    "eigen",
    "find_method",
    "fullgrad",
    "gradient",
    "masking",
    "method",
    "replaying",
    "weighted_sum",
]

METHODS.update(
    (one.name, one)
    for one in [
        Method(
            "gradcam",
            "Grad-CAM",
            gradient.gradcam,
            "gradient",
            paper="Selvaraju et al. 2017, arXiv:1610.02391",
            summary="feature maps weighted by their mean gradient",
        ),
        Method(
            "cam",
            "CAM",
            gradient.cam,
            "gradient",
            paper="Zhou et al. 2016, arXiv:1512.04150",
            summary="feature maps weighted by the linear head's own weights",
        ),
        Method(
            "gradcampp",
            "Grad-CAM++",
            gradient.gradcampp,
            "gradient",
            signed=False,
            paper="Chattopadhay et al. 2018, arXiv:1710.11063",
            summary="positive gradients, each weighted by its share of the evidence",
        ),
        Method(
            "gradcamppauthors",
            "Grad-CAM++ (authors)",
            gradient.gradcampp_authors,
            "gradient",
            signed=False,
            paper="Chattopadhay et al. 2018, the authors' code",
            summary="Grad-CAM++ with shares that sum to one per channel",
        ),
        Method(
            "smoothgradcampp",
            "Smooth Grad-CAM++",
            gradient.smoothgradcampp,
            "gradient",
            signed=False,
            paper="Omeiza et al. 2019, arXiv:1908.01224",
            summary="Grad-CAM++ with derivatives averaged over noisy inputs",
        ),
        Method(
            "xgradcam",
            "XGrad-CAM",
            gradient.xgradcam,
            "gradient",
            paper="Fu et al. 2020, arXiv:2008.02312",
            summary="gradients averaged by where the channel is active",
            uniform="gradcam",
        ),
        Method(
            "hirescam",
            "HiResCAM",
            gradient.hirescam,
            "gradient",
            paper="Draelos and Carin 2020, arXiv:2011.08891",
            summary="gradient times activation, place by place",
            uniform="gradcam",
        ),
        Method(
            "elementwise",
            "Element-wise",
            gradient.elementwise,
            "gradient",
            signed=False,
            paper="as in pytorch-grad-cam",
            summary="the positive part of gradient times activation",
        ),
        Method(
            "layercam",
            "LayerCAM",
            gradient.layercam,
            "gradient",
            signed=False,
            paper="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943",
            summary="each place weighted by its own positive gradient; good at shallow layers",
        ),
        Method(
            "eigengradcam",
            "Eigen-Grad-CAM",
            gradient.eigengradcam,
            "gradient",
            paper="as in pytorch-grad-cam",
            summary="first principal component of gradient times activation",
        ),
        Method(
            "segeigencam",
            "Seg-Eigen-CAM",
            gradient.segeigencam,
            "gradient",
            signed=False,
            paper="Chung and Ying 2025, doi:10.3390/app15137562",
            summary="first principal component of the activation times the gradient's magnitude",
        ),
        Method(
            "odam",
            "ODAM",
            gradient.odam,
            "gradient",
            paper="Zhao and Chan 2023, arXiv:2304.06354",
            summary="smoothed gradient times activation, place by place; for detected objects",
            uniform="gradcam",
        ),
        Method(
            "gcame",
            "G-CAME",
            gradient.gcame,
            "gradient",
            paper="Nguyen et al. 2023, arXiv:2306.03400",
            summary="Grad-CAM behind a Gaussian around a detected object",
            objects=True,
        ),
        Method(
            "shapleycam",
            "ShapleyCAM",
            gradient.shapleycam,
            "gradient",
            paper="Cai 2025, arXiv:2501.06261",
            summary="Grad-CAM with the score's curvature taken into account",
        ),
        Method(
            "finercam",
            "Finer-CAM",
            gradient.gradcam,
            "gradient",
            paper="Zhang et al. 2025, arXiv:2501.11309",
            summary="Grad-CAM of what tells a class from the three most like it",
            score=gradient.finer,
        ),
        Method(
            "eigencam",
            "Eigen-CAM",
            eigen.eigencam,
            "activation",
            signed=False,
            paper="Muhammad and Yeasin 2020, arXiv:2008.00299",
            summary="first singular vector of the activation; knows no target",
        ),
        Method(
            "kpcacam",
            "KPCA-CAM",
            eigen.kpcacam,
            "activation",
            signed=False,
            paper="Karmani et al. 2024, arXiv:2410.00267",
            summary="first kernel principal component of the activation; knows no target",
        ),
        Method(
            "fem",
            "FEM",
            eigen.fem,
            "activation",
            signed=False,
            paper="Fuad et al. 2020, hal-02963298",
            summary="where channels are unusually active; knows no target",
        ),
        Method(
            "ablationcam",
            "Ablation-CAM",
            replaying.ablationcam,
            "replay",
            paper="Desai and Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360",
            summary="feature maps weighted by how much the score falls without them",
        ),
        Method(
            "reciprocam",
            "Recipro-CAM",
            replaying.reciprocam,
            "replay",
            signed=False,
            paper="Byun and Lee 2022, arXiv:2209.14074",
            summary="the class's probability when the head sees one place only",
            look=Look(scale="minmax"),
        ),
        Method(
            "featureocclusion",
            "Feature occlusion",
            replaying.featureocclusion,
            "replay",
            paper="after Zeiler and Fergus 2014, arXiv:1311.2901",
            summary="how much the score falls without a place's features",
        ),
        Method(
            "scorecam",
            "Score-CAM",
            masking.scorecam,
            "masking",
            signed=False,
            paper="Wang et al. 2020, arXiv:1910.01279",
            summary="feature maps weighted by the probability behind their mask",
        ),
        Method(
            "scorecamsoftmax",
            "Score-CAM (softmax)",
            masking.scorecam_softmax,
            "masking",
            signed=False,
            paper="Wang et al. 2020, as in pytorch-grad-cam and torch-cam",
            summary="Score-CAM with a softmax over channels",
        ),
        Method(
            "sscam",
            "SS-CAM",
            masking.sscam,
            "masking",
            signed=False,
            paper="Wang et al. 2020, arXiv:2006.14255",
            summary="Score-CAM averaged over noisy masks",
        ),
        Method(
            "iscam",
            "IS-CAM",
            masking.iscam,
            "masking",
            signed=False,
            paper="Naidu et al. 2020, arXiv:2010.03023",
            summary="Score-CAM integrated from black to the masked photo",
        ),
        Method(
            "groupcam",
            "Group-CAM",
            masking.groupcam,
            "masking",
            paper="Zhang et al. 2021, arXiv:2103.13859",
            summary="Score-CAM of gradient-weighted channel groups before a blurred photo",
        ),
        Method(
            "sidu",
            "SIDU",
            masking.sidu,
            "masking",
            signed=False,
            paper="Muddamsetty et al. 2020, arXiv:2006.03122",
            summary="masks that keep the prediction and are unlike others; knows no target",
            look=Look(scale="minmax"),
        ),
        Method(
            "rise",
            "RISE",
            masking.rise,
            "masking",
            signed=False,
            paper="Petsiuk et al. 2018, arXiv:1806.07421",
            summary="random masks averaged by the probability behind them; needs no layer",
            look=Look(scale="minmax"),
        ),
        Method(
            "drise",
            "D-RISE",
            masking.drise,
            "masking",
            signed=False,
            paper="Petsiuk et al. 2021, arXiv:2006.03204",
            summary="random masks averaged by how far they leave a detected object; needs no layer",
            look=Look(scale="minmax"),
        ),
        Method(
            "occlusion",
            "Occlusion",
            masking.occlusion,
            "masking",
            paper="Zeiler and Fergus 2014, arXiv:1311.2901",
            summary="how much the score falls when a window is covered; needs no layer",
        ),
        Method(
            "sess",
            "SESS",
            masking.sess,
            "masking",
            signed=False,
            paper="Tursun et al. 2022, arXiv:2207.01769",
            summary="Grad-CAM of windows slid over enlarged copies of the photo",
        ),
        Method(
            "fullgrad",
            "FullGrad",
            fullgrad.fullgrad,
            "whole model",
            paper="Srinivas and Fleuret 2019, arXiv:1905.00780",
            summary="the whole score spread over the pixels; the map sums to it",
            look=Look(outliers=0.02),
        ),
        Method(
            "fullgradmagnitude",
            "FullGrad (magnitude)",
            fullgrad.fullgrad_magnitude,
            "whole model",
            signed=False,
            paper="Srinivas and Fleuret 2019, eq. 5",
            summary="FullGrad's shares by magnitude",
            look=Look(outliers=0.02),
        ),
        Method(
            "random",
            "Random",
            baselines.random,
            "baseline",
            signed=False,
            paper="",
            summary="noise: any method must be better",
            look=Look(scale="minmax"),
        ),
        Method(
            "edges",
            "Edges",
            baselines.edges,
            "baseline",
            signed=False,
            paper="Adebayo et al. 2018, arXiv:1810.03292",
            summary="the photo's edges: a method should be more than this",
            look=Look(outliers=0.02),
        ),
    ]
)
BUILT_IN.update(METHODS)


def default_method(form: Form) -> Method:
    """What is best where nothing is asked for, by what the model gives.

    Grad-CAM; for detections ODAM: an object's gradient is where the object is, and a mean over all places, Grad-CAM's
    weight, forgets it. For embeddings HiResCAM: summed over the places that a class token reads block by block,
    gradient times activation adds up what each of them gave, which a mean weight doesn't (and where the gradient is the
    same at all places it is Grad-CAM).
    """
    return METHODS[{"detections": "odam", "embeddings": "hirescam"}.get(form, "gradcam")]
