"""Tiny transformers models with random weights, one of each family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

from networks import stirred


def resnet(*stages: str) -> hf.ResNetConfig:
    return hf.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 12, 16, 20],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=list(stages) or ["stage4"],
    )


VIT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 64,
    "patch_size": 8,
}
DETR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 12,
    "num_labels": 4,
}
HYBRID: dict[str, Any] = {
    "d_model": 32,
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [12, 16, 20],
    "decoder_in_channels": [32, 32, 32],
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_layers": 2,
    "num_queries": 12,
    "num_labels": 4,
    "num_denoising": 0,
    "anchor_image_size": None,
    "eval_size": None,
}
OWL: dict[str, Any] = {
    "vision_config": VIT,
    "text_config": {
        "vocab_size": 40,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 8,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 39,
    },
    "projection_dim": 32,
}
SWIN: dict[str, Any] = {
    "embed_dim": 12,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
    "image_size": 128,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
LW: dict[str, Any] = {
    "d_model": 32,
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "decoder_n_points": 2,
    "num_queries": 12,
    "group_detr": 2,
    "num_labels": 4,
}
WINDOWED: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "image_size": 64,
    "patch_size": 8,
    "out_indices": [2, 4],
}
SAM: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "mlp_dim": 48,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 3,
        "global_attn_indexes": [2],
        "num_pos_feats": 8,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
}
MASKS: dict[str, Any] = {
    "mlp_dim": 32,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
    "iou_head_depth": 2,
}
HIERA: dict[str, Any] = {
    "hidden_size": 12,
    "image_size": [128, 128],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [12, 16, 24, 32],
    "num_attention_heads_per_stage": [1, 1, 2, 2],
    "window_size_per_stage": [4, 2, 2, 2],
    "global_attention_blocks": [3],
    "window_positional_embedding_background_size": [4, 4],
}
PYRAMID: dict[str, Any] = {"backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]], "fpn_hidden_size": 32}
SAM2: dict[str, Any] = {
    "vision_config": {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **HIERA},
        "backbone_channel_list": [32, 24, 16, 12],
        **PYRAMID,
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4},
    "mask_decoder_config": {"hidden_size": 32, **MASKS},
}
VIDEO: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "num_frames": 8,
    "num_labels": 5,
}


def rf_detr() -> hf.RfDetrConfig:
    return hf.RfDetrConfig(backbone_config=hf.RfDetrDinov2Config(**WINDOWED, num_windows=2), **LW)


def hybrid(config: type[Any], **more: Any) -> Any:
    backbone = resnet("stage2", "stage3", "stage4")
    return config(backbone_config=backbone, **HYBRID, **more)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT, num_labels=5)),
    "deit": lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**VIT, num_labels=5)),
    "beit": lambda: hf.BeitForImageClassification(hf.BeitConfig(**VIT, num_labels=5, use_mask_token=False)),
    "dinov2 with registers": lambda: hf.Dinov2WithRegistersForImageClassification(
        hf.Dinov2WithRegistersConfig(**{**VIT, "mlp_ratio": 2}, num_register_tokens=3, num_labels=5)
    ),
    "swin": lambda: hf.SwinForImageClassification(hf.SwinConfig(**SWIN, num_labels=5)),
    "convnext": lambda: hf.ConvNextForImageClassification(
        hf.ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1], num_labels=5)
    ),
    "resnet": lambda: hf.ResNetForImageClassification(resnet()),
    "regression": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT, num_labels=1)),
    "detr": lambda: hf.DetrForObjectDetection(hf.DetrConfig(backbone_config=resnet(), **DETR)),
    "conditional detr": lambda: hf.ConditionalDetrForObjectDetection(
        hf.ConditionalDetrConfig(backbone_config=resnet(), **DETR)
    ),
    "deformable detr": lambda: hf.DeformableDetrForObjectDetection(
        hf.DeformableDetrConfig(backbone_config=resnet("stage3", "stage4"), num_feature_levels=3, **DETR)
    ),
    "rt-detr": lambda: hf.RTDetrForObjectDetection(hybrid(hf.RTDetrConfig)),
    "rt-detr v2": lambda: hf.RTDetrV2ForObjectDetection(hybrid(hf.RTDetrV2Config)),
    "d-fine": lambda: hf.DFineForObjectDetection(hybrid(hf.DFineConfig)),
    "yolos": lambda: hf.YolosForObjectDetection(
        hf.YolosConfig(**{**VIT, "image_size": [64, 96]}, num_detection_tokens=12, num_labels=4)
    ),
    "table transformer": lambda: hf.TableTransformerForObjectDetection(
        hf.TableTransformerConfig(
            backbone_config=resnet(), use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, **DETR
        )
    ),
    "dab-detr": lambda: hf.DabDetrForObjectDetection(
        hf.DabDetrConfig(
            backbone_config=resnet(),
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            hidden_size=32,
            **{k: v for k, v in DETR.items() if k != "d_model"},
        )
    ),
    "owlvit": lambda: hf.OwlViTForObjectDetection(hf.OwlViTConfig(**OWL)),
    "owlv2": lambda: hf.Owlv2ForObjectDetection(hf.Owlv2Config(**OWL)),
    "grounding dino": lambda: hf.GroundingDinoForObjectDetection(
        hf.GroundingDinoConfig(
            backbone_config=hf.SwinConfig(**{**SWIN, "out_features": ["stage2", "stage3", "stage4"]}),
            text_config=hf.BertConfig(
                vocab_size=40,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=64,
            ),
            **{**DETR, "num_labels": 2},
            max_text_len=32,
            num_feature_levels=3,
        )
    ),
    "segformer": lambda: hf.SegformerForSemanticSegmentation(
        hf.SegformerConfig(
            hidden_sizes=[8, 12, 16, 20],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
            num_labels=5,
        )
    ),
    "upernet": lambda: hf.UperNetForSemanticSegmentation(
        hf.UperNetConfig(backbone_config=hf.SwinConfig(**SWIN), hidden_size=16, num_labels=5, use_auxiliary_head=False)
    ),
    "beit segmenter": lambda: hf.BeitForSemanticSegmentation(
        hf.BeitConfig(**VIT, num_labels=5, out_indices=[1, 2, 3, 4], use_auxiliary_head=False)
    ),
    "dpt segmenter": lambda: hf.DPTForSemanticSegmentation(
        hf.DPTConfig(
            **VIT,
            num_labels=5,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            use_auxiliary_head=False,
        )
    ),
    "maskformer": lambda: hf.MaskFormerForInstanceSegmentation(
        hf.MaskFormerConfig(
            backbone_config=hf.SwinConfig(**SWIN),
            decoder_config=hf.DetrConfig(**{**DETR, "encoder_layers": 1}),
            fpn_feature_size=32,
            mask_feature_size=32,
            num_labels=5,
        )
    ),
    "mask2former": lambda: hf.Mask2FormerForUniversalSegmentation(
        hf.Mask2FormerConfig(
            backbone_config=hf.SwinConfig(**SWIN),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=32,
            dim_feedforward=32,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=12,
            num_labels=5,
        )
    ),
    "oneformer": lambda: hf.OneFormerForUniversalSegmentation(
        hf.OneFormerConfig(
            backbone_config=hf.SwinConfig(**SWIN),
            num_queries=13,
            text_encoder_width=32,
            text_encoder_num_layers=1,
            text_encoder_vocab_size=40,
            conv_dim=32,
            mask_dim=32,
            hidden_dim=32,
            encoder_feedforward_dim=32,
            dim_feedforward=32,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            query_dec_layers=1,
            num_labels=5,
        )
    ),
    "dpt depth": lambda: hf.DPTForDepthEstimation(
        hf.DPTConfig(**VIT, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8)
    ),
    "depth anything": lambda: hf.DepthAnythingForDepthEstimation(
        hf.DepthAnythingConfig(
            backbone_config=hf.Dinov2Config(
                **{**VIT, "mlp_ratio": 2}, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
            ),
            patch_size=8,
            reassemble_hidden_size=32,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=8,
        )
    ),
    "glpn": lambda: hf.GLPNForDepthEstimation(
        hf.GLPNConfig(
            hidden_sizes=[8, 12, 16, 20],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
        )
    ),
    "rf-detr": lambda: hf.RfDetrForObjectDetection(rf_detr()),
    "rf-detr segmenter": lambda: hf.RfDetrForInstanceSegmentation(rf_detr()),
    "lw-detr": lambda: hf.LwDetrForObjectDetection(
        hf.LwDetrConfig(
            backbone_config=hf.LwDetrViTConfig(**WINDOWED, num_windows=4, window_block_indices=[0, 2]),
            projector_scale_factors=[2.0, 0.5],
            **LW,
        )
    ),
    "omdet-turbo": lambda: hf.OmDetTurboForObjectDetection(
        hf.OmDetTurboConfig(
            backbone_config=hf.SwinConfig(**{**SWIN, "out_features": ["stage2", "stage3", "stage4"]}),
            text_config=hf.CLIPTextConfig(**{**OWL["text_config"], "vocab_size": 58, "max_position_embeddings": 77}),
            apply_layernorm_after_vision_backbone=False,
            text_projection_in_dim=32,
            text_projection_out_dim=32,
            class_embed_dim=32,
            task_encoder_hidden_dim=32,
            vision_features_channels=[16] * 3,
            encoder_in_channels=[24, 48, 96],
            encoder_hidden_dim=16,
            encoder_dim_feedforward=32,
            encoder_attention_heads=2,
            decoder_hidden_dim=16,
            decoder_num_heads=2,
            decoder_num_layers=2,
            decoder_dim_feedforward=32,
            decoder_num_points=2,
            num_queries=12,
            cache_size=3,
        )
    ),
    "sam": lambda: hf.SamModel(hf.SamConfig(**SAM, mask_decoder_config={"hidden_size": 16, **MASKS})),
    "sam-hq": lambda: hf.SamHQModel(
        hf.SamHQConfig(**SAM, mask_decoder_config={"hidden_size": 16, "vit_dim": 32, **MASKS})
    ),
    "sam 2": lambda: hf.Sam2Model(hf.Sam2Config(**SAM2)),
    "edgetam": lambda: hf.EdgeTamModel(
        hf.EdgeTamConfig(
            vision_config=hf.EdgeTamVisionConfig(
                backbone_config=hf.TimmWrapperConfig(
                    architecture="repvit_m1",
                    num_labels=0,
                    model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
                ),
                **PYRAMID,
            ),
            **{name: part for name, part in SAM2.items() if name != "vision_config"},
        )
    ),
    "videomae": lambda: hf.VideoMAEForVideoClassification(hf.VideoMAEConfig(**VIDEO, patch_size=8, tubelet_size=2)),
    "vivit": lambda: hf.VivitForVideoClassification(hf.VivitConfig(**VIDEO, tubelet_size=[2, 8, 8])),
    "timesformer": lambda: hf.TimesformerForVideoClassification(hf.TimesformerConfig(**VIDEO, patch_size=8)),
    "v-jepa 2": lambda: hf.VJEPA2ForVideoClassification(
        hf.VJEPA2Config(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            mlp_ratio=2,
            crop_size=32,
            patch_size=8,
            frames_per_clip=8,
            num_labels=5,
            num_pooler_layers=1,
            pred_hidden_size=24,
            pred_num_attention_heads=2,
            pred_num_hidden_layers=1,
        )
    ),
}


def model(name: str) -> Any:
    """In evaluation mode, with weights that are large enough to decide something."""
    torch.manual_seed(0)
    made = MODELS[name]()
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in made.named_parameters():
        if parameter.ndim > 1 and "embeddings" not in parameter_name:
            with torch.no_grad():
                parameter.normal_(0, (1.5 / parameter[0].numel()) ** 0.5, generator=generator)
    if type(made).__name__.startswith(("DPTForDepth", "DepthAnything")):
        for module in made.head.modules():  # depths that the last ReLU leaves alone
            if isinstance(module, nn.Conv2d) and module.out_channels == 1:
                nn.init.constant_(module.bias, 100)
    return stirred(made)
