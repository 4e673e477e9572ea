"""What the demo models are (open_clip configurations) and how each of them is trained."""

import math
from dataclasses import dataclass, replace

from vocabulary import vocabulary

CONTEXT = 24  # tokens; the longest captions have 24


@dataclass(frozen=True)
class Recipe:
    """How a demo model is trained; every stage begins at a share of the steps."""

    kind: str  # "clip" (softmax loss) or "siglip" (sigmoid loss)
    canvas: int  # pixels per side of the images
    patch: int  # pixels per side of a patch
    steps: int
    images: int = 128  # per step
    peak: float = 2e-3  # learning rate of Muon's matrices; AdamW has half of it
    single: float = 0.22  # before: mostly scenes of one thing
    information: float = 0.3  # from here on: hidden words and patches as negatives, more hard ones
    masking: float = 0.4  # from here on: images with hidden patches
    restarts: tuple[int, ...] = ()  # steps at which training went on from half-precision weights
    start_from: str | None = None  # demo model whose weights it starts from

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.canvas // self.patch

    def scaled(self, steps: int) -> "Recipe":
        """The same recipe with another number of steps."""
        return replace(self, steps=steps)


RECIPES: dict[str, Recipe] = {
    "demo-clip": Recipe("clip", canvas=112, patch=16, steps=6000),
    "demo-siglip": Recipe("siglip", canvas=128, patch=16, steps=6000),
    "demo-clip-fine": Recipe(
        "clip", canvas=112, patch=8, steps=2000, images=96, single=0, start_from="demo-clip"
    ),
}
WARMUP = 100  # steps, at the start and after a restart


def model_config(name: str) -> dict:
    """The open_clip configuration (``open_clip_config.json``) of a demo model."""
    recipe = RECIPES[name]
    text = {
        "context_length": CONTEXT,
        "vocab_size": len(vocabulary(recipe.kind)),
        "hf_tokenizer_name": name,  # open_clip then reads the tokenizer files of the folder
        "width": 128,
        "heads": 4,
        "layers": 3,
        "mlp_ratio": 2.0,
    }
    model = {"embed_dim": 128, "text_cfg": text}
    if recipe.kind == "clip":
        model["vision_cfg"] = {
            "image_size": recipe.canvas,
            "patch_size": recipe.patch,
            "width": 128,
            "head_width": 32,
            "layers": 6,
            "mlp_ratio": 3.0,
        }
    else:
        model |= {"init_logit_scale": math.log(10), "init_logit_bias": -6.0, "custom_text": True}
        model["vision_cfg"] = {
            "image_size": recipe.canvas,
            "timm_model_name": f"fixlip_vit_siglip_p{recipe.patch}_{recipe.canvas}",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        }
        text |= {
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
        }
    grey = [0.5, 0.5, 0.5]
    preprocess = {
        "mean": grey,
        "std": grey,
        "interpolation": "bicubic",
        "resize_mode": "squash" if recipe.kind == "siglip" else "shortest",
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def learning_rate(recipe: Recipe, step: int) -> float:
    """Half a cosine from the peak to zero; linear warm-up at the start and after each restart."""
    rate = recipe.peak * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    since = step - max((restart for restart in recipe.restarts if restart <= step), default=0)
    return rate * min(1, (since + 1) / WARMUP)
