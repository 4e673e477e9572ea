"""Configurations of tiny models of every kind, for fixtures and tests."""

import json


def _text(**changes):
    sizes = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 4, "layers": 2}
    return {**sizes, **changes}


def _native(**changes):
    return {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 2, **changes}


SIGLIP = {
    "embed_dim": 128,
    "custom_text": True,
    "init_logit_bias": -10,
    "vision_cfg": {
        "image_size": 48,
        "timm_model_name": "fixlip_vit_siglip_p8_48",
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": _text(no_causal_mask=True, pool_type="last", proj_bias=True),
}
CONFIGS = {
    "clip": {"vision_cfg": _native(), "text_cfg": _text()},
    "siglip": SIGLIP,
    # what open_clip's configurations can vary, beyond the two
    "average-eos": {
        "custom_text": True,
        "vision_cfg": _native(pool_type="avg", final_ln_after_pool=True, no_ln_pre=True),
        "text_cfg": _text(pool_type="eos", eos_id=1),
    },
    "oblong-first": {  # the last rows and columns of pixels belong to no patch
        "vision_cfg": _native(image_size=(20, 30), ls_init_value=0.5),
        "text_cfg": _text(pool_type="first", no_causal_mask=True),
        "custom_text": True,
    },
    "custom-blocks": {
        "vision_cfg": _native(qk_norm=True, scale_fc=True),
        "text_cfg": _text(qk_norm=True, scale_attn=True, no_causal_mask=True),
    },
}


def tiny_config(kind):
    """Return the open_clip configuration of a tiny model."""
    return {"embed_dim": 16, **json.loads(json.dumps(CONFIGS[kind]))}
