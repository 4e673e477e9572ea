"""Small SigLIP-like image towers, registered with timm so that open_clip can build them."""

from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer


def register_towers() -> None:
    """Make the image towers of the SigLIP demo models known to timm (safe to call again).

    They have the structure of timm's ``vit_*_siglip_*`` models: no class token, a learned position
    for each patch, the tanh form of GELU, and attention pooling with a learned query (``map``).
    """
    towers = (fixlip_vit_siglip_p16_128, fixlip_vit_siglip_p8_48, fixlip_vit_siglip_p4_48)
    for tower in towers:
        if not timm.is_model(tower.__name__):
            timm.models.register_model(tower)


def fixlip_vit_siglip_p16_128(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """128 pixels, 64 patches of 16 pixels, width 128, 6 layers."""
    size = {"img_size": 128, "depth": 6, "mlp_ratio": 3}
    return _tower(patch_size=16, embed_dim=128, num_heads=4, **(size | options))


def fixlip_vit_siglip_p8_48(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """48 pixels, 36 patches of 8 pixels, width 128, 4 layers."""
    return _tower(patch_size=8, embed_dim=128, num_heads=4, **options)


def fixlip_vit_siglip_p4_48(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """48 pixels, 144 patches of 4 pixels, width 128, 4 layers."""
    return _tower(patch_size=4, embed_dim=128, num_heads=4, **options)


def _tower(*, pretrained_cfg=None, pretrained_cfg_overlay=None, cache_dir=None, **options):
    # timm passes where to find pretrained weights; these towers have none
    structure = {
        "img_size": 48,
        "depth": 4,
        "mlp_ratio": 2,
        "class_token": False,
        "global_pool": "map",
        "act_layer": "gelu_tanh",
    }
    return VisionTransformer(**(structure | options))
