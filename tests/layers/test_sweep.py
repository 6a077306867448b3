"""Every family of torchvision and timm: built with random weights and explained, with nothing said about it."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import list_models

import hookmap as hm
from networks import noise

MOST_PARAMETERS = 150e6

# A few families each of plain, gated, pooled, windowed, hierarchical and token networks: what every run looks at.
ALWAYS = """
torchvision/squeezenet1_1 torchvision/googlenet torchvision/shufflenet_v2_x0_5 torchvision/mnasnet0_5
timm/convit_tiny timm/crossvit_tiny_240 timm/ghostnet_050 timm/levit_128s timm/mobilevit_xxs timm/mvitv2_tiny
timm/pit_ti_224 timm/pvt_v2_b0 timm/repvit_m1 timm/resmlp_12_224 timm/rexnet_100 timm/sam2_hiera_tiny timm/volo_d1_224
timm/vit_tiny_patch16_dinov3_qkvb timm/xcit_nano_12_p8_224 timm/lambda_resnet26t
"""

# The smallest of each family of each of timm's modules.
TIMM = """
beit_base_patch16_224 beitv2_base_patch16_224 botnet26t_256 eca_botnext26ts_256 halo2botnet50ts_256 halonet_h1
haloregnetz_b lambda_resnet26t lamhalobotnet50ts_256 sebotnet33ts_256 sehalonet33ts bat_resnext26ts eca_resnext26ts
gcresnet33ts gcresnext26ts gernet_s mobileone_s1 regnetz_b16 repvgg_a0 resnet32ts resnext26ts seresnet33ts
seresnext26ts cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 convnext_zepto_rms convnextv2_atto cpubone_nano
crossvit_tiny_240 csatv2 cs3darknet_s cspdarknet53 cspresnet50 cspresnext50 darknet17 darknetaa53 sedarknet21
cspnext_tiny davit_tiny deepseek_vit_412m deit_tiny_patch16_224 densenet121 densenetblur121d dla46x_c dpn48b
edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientnetv2_rw_t fbnetc_100
gc_efficientnetv2_rw_t mixnet_s mnasnet_small mobilenet_edgetpu_100 mobilenetv2_035 semnasnet_050 spnasnet_100
tf_efficientnet_b0 tf_efficientnetv2_b0 tf_mixnet_s tinynet_e efficientvim_m1 efficientvit_b0 efficientvit_m0
eva02_tiny_patch14_224 vit_tiny_patch16_dinov3_qkvb fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny
gemma4_vit_167m ghostnet_050 ghostnetv3_050 hardcorenas_b hgnet_tiny hgnetv2_b0 hiera_tiny_224 hieradet_small
sam2_hiera_tiny hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2 inception_v3 inception_v4
lcnetv2_small levit_128s lowformer_b0 mambaout_femto coatnet_pico_rw_224 coatnext_nano_rw_224 maxvit_pico_rw_256
maxxvit_rmlp_nano_rw_256 maxxvitv2_nano_rw_256 caformer_s18 convformer_s18 poolformer_s12 poolformerv2_s12
gmixer_12_224 gmlp_ti16_224 mixer_s16_224 resmlp_12_224 fbnetv3_b lcnet_035 mobilenetv3_small_050
tf_mobilenetv3_small_075 mobilenetv5_base mobilevit_xxs mobilevitv2_050 mvitv2_tiny naflexvit_base_patch16_siglip
nasnetalarge nest_tiny nextvit_small dm_nfnet_f0 eca_nfnet_l0 nf_regnet_b0 nfnet_f0 pit_ti_224 pnasnet5large pvt_v2_b0
qwen3_vit_88m rdnet_tiny regnetv_040 regnetx_002 regnety_002 regnetz_005 repghostnet_050 repvit_m1 res2next50
resnest14d ecaresnet50d_pruned ecaresnetlight ecaresnext26t_32x4d resnet10t resnetaa34d resnetblur18 resnetrs50
resnext50_32x4d seresnet18 seresnetaa50d seresnext26t_32x4d seresnextaa101d_32x8d wide_resnet50_2 resnetv2_18
rexnet_100 rexnetr_100 selecsls42 legacy_senet154 legacy_seresnet18 legacy_seresnext26_32x4d sequencer2d_s shvit_s1
skresnet18 skresnext50_32x4d starnet_s050 swiftformer_xs swin_base_patch4_window7_224 swin_tiny_patch4_window7_224
swin_s3_tiny_224 swin_small_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tiny_vit_5m_224
tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny aimv2_1b_patch14_224 beit3_base_patch16_224
flexivit_small vit_tiny_patch16_224 vit_tiny_r_s16_p8_224 vit_srelpos_small_patch16_224 samvit_base_patch16_224
vitamin_small_224 volo_d1_224 eca_vovnet39b ese_vovnet19b_slim_dw vovnet39a legacy_xception xception41p
xcit_nano_12_p8_224 vit_small_patch14_reg4_dinov2 vit_small_patch16_dinov3 vit_base_patch16_siglip_224
vit_base_patch32_clip_224 vit_medium_patch16_gap_240 vit_medium_patch16_reg4_gap_256 vit_base_patch16_rpn_224
vit_relpos_small_patch16_224 vit_little_patch16_reg1_gap_256 vit_small_patch16_36x1_224
deit_tiny_distilled_patch16_224 deit3_small_patch16_224 vit_pe_core_tiny_patch16_384 vit_pe_spatial_tiny_patch16_512
vit_small_r26_s32_224 eva02_tiny_patch14_336 swinv2_cr_tiny_ns_224 twins_pcpvt_small levit_conv_128s mixer_s32_224
mobilenetv4_conv_small mobilenetv4_hybrid_medium mobilenetv1_100 efficientvit_l1 hrnet_w18_small_v2 dla34
res2net50_14w_8s resnet18 resnetv2_50 ecaresnet26t fastvit_mci0 fastvit_sa12 coat_lite_tiny hiera_small_abswin_256
vit_wee_patch16_reg1_gap_256 vit_base_patch8_224 mambaout_kobe vgg11_bn ghostnetv2_100 pit_ti_distilled_224
maxvit_tiny_tf_224 edgenext_small_rw tf_efficientnet_lite0 tf_efficientnet_es cs3sedarknet_l convnext_atto
convnext_atto_ols test_vit4
"""

# The only ones of their modules, and larger than need be.
SHALLOW = {"deepseek_vit_412m": {"depth": 4}, "gemma4_vit_167m": {"depth": 4}, "aimv2_1b_patch14_224": {"depth": 2}}

EVERY = [f"timm/{name}" for name in TIMM.split()] + [
    f"torchvision/{name}" for name in list_models(module=torchvision.models)
]


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A model in which a decision is made, and an input of its size (a smaller one where it takes any)."""
    torch.manual_seed(0)
    library, _, plain = name.partition("/")
    if library == "timm":
        config = timm.get_pretrained_cfg(plain)
        towers = ("vitamin", "vit_pe_core", "fastvit_mci")
        # Backbones come without classes, and towers of image-text models with a space of embeddings.
        classes = {"num_classes": 10} if not config.num_classes or plain.startswith(towers) else {}
        model = timm.create_model(plain, **classes, **SHALLOW.get(plain, {}))
        size = config.input_size
        if (
            not config.fixed_input_size
            and size[-1] > 192
            and not plain.startswith(("halo", "sehalo", "bat", "deepseek"))
        ):
            size = (size[0], 192, 192)
    else:
        options = {"init_weights": False, "aux_logits": False} if plain in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(plain, weights=None, **options)
        transform = torchvision.models.get_model_weights(plain).DEFAULT.transforms()
        fixed = plain.startswith(("vit", "maxvit", "inception"))
        size = (3, *[transform.crop_size[0] if fixed else 192] * 2)
    for module in model.modules():
        # Layers that start as zeros let no gradient through: their model decides nothing before it is trained.
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and not weight.any():
            nn.init.normal_(weight, std=0.02) if weight.ndim > 1 else nn.init.ones_(weight)
    if plain.startswith("levit"):  # before its batch norms have seen anything, the signal fades out in the stem
        norms = [m for m in model.eval().modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train().momentum = 1.0
        with torch.no_grad():
            model(noise(4, *size))
    return model.eval(), noise(1, *size)


def explained(name: str) -> hm.Heatmap:
    """Grad-CAM of the predicted class at the default layer, checked."""
    model, x = build(name)
    parameters = sum(p.numel() for p in model.parameters())
    if parameters > MOST_PARAMETERS:
        pytest.skip(f"{parameters / 1e6:.0f} million parameters")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the heatmap of", hm.HookmapWarning)  # random weights may well speak against
        warnings.filterwarnings("ignore", "the map at .* of what passes there", hm.HookmapWarning)
        (heatmap,) = hm.Lens(model).explain(x)
    raw = heatmap.raw
    assert raw.isfinite().all()
    assert raw.ndim == 2
    assert raw.shape[0] == raw.shape[1] > 1, f"the grid is {tuple(raw.shape)}"
    assert raw.any(), f"no gradient reaches {heatmap.layer}"
    assert raw.std() > 1e-4 * raw.abs().max(), f"the map at {heatmap.layer} is the same everywhere"
    layers = list(heatmap.question.layers)
    with hm.capture(model, layers) as seen:
        model(x)
    assert [len(seen[layer].calls) for layer in layers] == [1] * len(layers)
    return heatmap


@pytest.mark.parametrize("name", ALWAYS.split())
def test_a_family(name: str) -> None:
    explained(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_family(name: str) -> None:
    if name.startswith("timm/") and not timm.is_model(name.removeprefix("timm/")):
        pytest.skip(f"timm {timm.__version__} doesn't have it")
    explained(name)


@pytest.mark.slow
def test_no_module_of_timm_is_left_out() -> None:
    looked_at = {
        timm.models.model_entrypoint(name).__module__.rpartition(".")[2] for name in TIMM.split() if timm.is_model(name)
    }
    assert set(timm.list_modules()) - looked_at == set()
