"""What the demo models are (open_clip configurations) and how each of them was trained."""

import math
from dataclasses import dataclass, replace

from fixlip.demo.tokenizers import vocabulary


@dataclass(frozen=True)
class Recipe:
    """How a demo model is trained; stages begin and end at given steps."""

    kind: str  # "clip" (softmax loss) or "siglip" (sigmoid loss)
    grid: int  # patches per side
    images: int  # per step
    steps: int
    singles: int  # before this step: scenes of one object
    relations: int  # from here on: more relations
    masking: int  # from here on: masked images and captions
    cycles: tuple[tuple[int, int, float], ...]  # of the learning rate: (start, end, peak)
    places: tuple[tuple[int, int], ...] = ()  # in these intervals: the place probe
    softmax: tuple[tuple[int, int], ...] = ()  # in these: the softmax loss too (siglip)
    patch_dropout: float = 0.0  # share of the patches left out before `masking`
    start_from: str | None = None  # demo model whose weights it starts from

    def scaled(self, steps: int) -> "Recipe":
        """The same recipe, stretched or shortened to another number of steps."""

        def scale(step: int) -> int:
            return round(step * steps / self.steps)

        return replace(
            self,
            steps=steps,
            singles=scale(self.singles),
            relations=scale(self.relations),
            masking=scale(self.masking),
            cycles=tuple((scale(start), scale(end), peak) for start, end, peak in self.cycles),
            places=tuple((scale(start), scale(end)) for start, end in self.places),
            softmax=tuple((scale(start), scale(end)) for start, end in self.softmax),
        )


# A record of how the committed models were trained, with the cycles that were added on the way.
# demo-siglip-fine started from demo-siglip at its step 5250:
#   python data/demo_models/train.py demo-siglip --stop 5250
#   python data/demo_models/train.py demo-siglip-fine
#   python data/demo_models/train.py demo-siglip --resume
RECIPES: dict[str, Recipe] = {
    "demo-clip": Recipe(
        "clip",
        grid=6,
        images=128,
        steps=4250,
        singles=320,
        relations=1600,
        masking=3350,
        cycles=((0, 4000, 1e-3), (2250, 4250, 1e-3)),
        places=((2250, 3350),),
    ),
    "demo-siglip": Recipe(
        "siglip",
        grid=6,
        images=96,
        steps=6500,
        singles=400,
        relations=2500,
        masking=4000,
        cycles=((0, 5000, 1e-3), (3000, 5000, 1e-3), (4750, 6500, 7e-4)),
        places=((3000, 4000), (5250, 6300)),
        softmax=((2000, 4500), (4750, 6300)),
    ),
    "demo-siglip-fine": Recipe(
        "siglip",
        grid=12,
        images=64,
        steps=2250,
        singles=0,
        relations=0,
        masking=1500,
        cycles=((0, 1500, 7e-4), (750, 2250, 7e-4)),
        places=((0, 2150),),
        softmax=((0, 2150),),
        patch_dropout=0.5,
        start_from="demo-siglip",
    ),
}
WARMUP = 60  # steps


def model_config(name: str) -> dict:
    """The open_clip configuration (``open_clip_config.json``) of a demo model."""
    if name not in RECIPES:
        raise ValueError(f"unknown demo model {name!r}: expected one of {list(RECIPES)}")
    kind = RECIPES[name].kind
    text = {
        "context_length": 20,
        "vocab_size": len(vocabulary(kind)),
        "hf_tokenizer_name": name,  # open_clip then reads the tokenizer files of the folder
        "width": 128,
        "heads": 4,
        "layers": 3,
        "mlp_ratio": 2.0,
    }
    model = {"embed_dim": 128, "text_cfg": text}
    if kind == "clip":
        model["vision_cfg"] = {
            "image_size": 48,
            "patch_size": 48 // RECIPES[name].grid,
            "width": 128,
            "head_width": 32,
            "layers": 4,
            "mlp_ratio": 2.0,
        }
    else:
        patch = 48 // RECIPES[name].grid
        model |= {"init_logit_scale": math.log(10), "init_logit_bias": -6.0, "custom_text": True}
        model["vision_cfg"] = {
            "image_size": 48,
            "timm_model_name": f"fixlip_vit_siglip_p{patch}_48",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        }
        text |= {
            "layers": 2,
            "context_length": 18,
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
        "resize_mode": "squash" if kind == "siglip" else "shortest",
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def learning_rate(recipe: Recipe, step: int) -> float:
    """Half a cosine from the peak to zero in the latest cycle; linear warm-up at the very start."""
    start, end, peak = [cycle for cycle in recipe.cycles if cycle[0] <= step][-1]
    if start == 0:
        if step < WARMUP:
            return peak * (step + 1) / WARMUP
        start = WARMUP
    return peak * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, end - start)))
