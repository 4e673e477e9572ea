"""Whole forward passes with the attention spelled out head by head, as oracles for explainers."""

import math
from typing import NamedTuple

import open_clip
import torch

from fixlip.encoders import Encoder

KINDS = {  # tiny models, with the tokenizer that fits
    "clip": "demo-clip",
    "quickgelu": "clip",
    "siglip": "siglip2",
    "average-eos": "siglip2",
    "oblong-first": "clip",
    "custom-blocks": "clip",
    "timm-token": "clip",
    "pe-core": "clip",
    "timm-average": "clip",
}


def build(tiny_model, tokenizer_folder, kind, **options):
    """Wrap a tiny model in an encoder, with biases that are not zero."""
    model = tiny_model(kind, _config(kind))
    generator = torch.Generator().manual_seed(1)
    for weights in model.parameters():
        if weights.ndim == 1:
            weights.data += 0.1 * torch.randn(weights.shape, generator=generator)
    read = open_clip.tokenizer.HFTokenizer(
        str(tokenizer_folder(KINDS[kind], 12)), context_length=model.context_length
    )
    return Encoder(model, read, name=kind, **options)


def _config(kind):
    text = {"context_length": 12, "vocab_size": 600, "width": 32, "heads": 4, "layers": 2}
    native = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 2}
    timm = {
        "timm-token": ("test_vit", 160, "token"),
        "pe-core": ("vit_pe_core_tiny_patch16_384", 384, "map"),
        "timm-average": ("test_vit", 160, "avg"),
    }
    if kind == "quickgelu":
        return {"embed_dim": 16, "vision_cfg": native, "text_cfg": text, "quick_gelu": True}
    if kind in timm:
        name, size, pool = timm[kind]
        vision = {"timm_model_name": name, "image_size": size, "timm_pool": pool}
        vision["timm_proj"] = "linear"
        return {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    return None


class Step(NamedTuple):
    """One attention layer: everything (positions, width), probabilities (heads, queries, keys)."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    probabilities: torch.Tensor
    output: torch.Tensor


class Spelled:
    """Forward pass of a side of a native CLIP, or of a SigLIP.

    The last `one` layers attend with one head. `nudges` and `shifts` are added to the
    probabilities and to the outputs (before the projection) of layers, by their index.
    """

    def __init__(self, side, *, one=0, nudges=None, shifts=None):
        self.one, self.nudges, self.shifts = one, nudges or {}, shifts or {}
        self.steps = []
        model = side.encoder.model
        if hasattr(side, "ids"):
            text = getattr(model, "text", model)
            x = (text.token_embedding(side.ids) + text.positional_embedding)[0]
            self.depth = len(text.transformer.resblocks)
            for block in text.transformer.resblocks:
                x = self.native(block, x, text.attn_mask)
            x = text.ln_final(x)[side.pooled]
            project = text.text_projection
            x = project(x) if isinstance(project, torch.nn.Linear) else x @ project
        elif hasattr(model.visual, "trunk"):
            trunk = model.visual.trunk
            x = (trunk.patch_embed(side.pixels) + trunk.pos_embed)[0]
            self.depth = len(trunk.blocks) + 1
            for block in trunk.blocks:
                x = self.timm(block, x)
            x = self.pool(trunk.attn_pool, trunk.norm(x))
        else:
            visual = model.visual
            x = visual.conv1(side.pixels).flatten(2)[0].T  # (patches, width)
            x = torch.cat([visual.class_embedding[None], x]) + visual.positional_embedding
            x = visual.ln_pre(x)
            self.depth = len(visual.transformer.resblocks)
            for block in visual.transformer.resblocks:
                x = self.native(block, x, None)
            x = visual.ln_post(x)[0] @ visual.proj
        self.embedding = x / x.norm()

    def attend(self, q, k, v, heads, mask):
        layer = len(self.steps)
        if layer >= self.depth - self.one:
            heads = 1
        size = q.shape[1] // heads
        outputs, probabilities = [], []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            if mask is not None:
                scores = scores + mask
            p = scores.exp() / scores.exp().sum(1, keepdim=True)
            if layer in self.nudges:
                p = p + self.nudges[layer][h]
            probabilities.append(p)
            outputs.append(p @ v[:, part])
        output = torch.cat(outputs, 1)
        if layer in self.shifts:
            output = output + self.shifts[layer]
        self.steps.append(Step(q, k, v, torch.stack(probabilities), output))
        return output

    def native(self, block, x, mask):
        attn, y = block.attn, block.ln_1(x)
        W, b = attn.in_proj_weight, attn.in_proj_bias
        n = x.shape[1]
        q, k, v = (y @ W[i * n : (i + 1) * n].T + b[i * n : (i + 1) * n] for i in range(3))
        x = x + block.ls_1(attn.out_proj(self.attend(q, k, v, attn.num_heads, mask)))
        return x + block.ls_2(block.mlp(block.ln_2(x)))

    def timm(self, block, x):
        attn, n = block.attn, x.shape[1]
        qkv = attn.qkv(block.norm1(x))
        q, k, v = qkv[:, :n], qkv[:, n : 2 * n], qkv[:, 2 * n :]
        x = x + attn.proj(self.attend(q, k, v, attn.num_heads, None))
        return x + block.mlp(block.norm2(x))

    def pool(self, pool, x):
        kv, n = pool.kv(x), x.shape[1]
        q = pool.q(pool.latent[0])
        x = pool.proj(self.attend(q, kv[:, :n], kv[:, n:], pool.num_heads, None))
        return (x + pool.mlp(pool.norm(x)))[0]


def state(model):
    """What must be the same before and after: switches, gradients, hooks and the weights."""
    hooks = [
        dict(getattr(module, kind))
        for module in model.modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    ]
    weights = [(p.requires_grad, p.grad, float(p.double().sum())) for p in model.parameters()]
    return hooks, weights, [module.training for module in model.modules()]


def image_terms(explanation):
    """First-order terms of the image's players."""
    return explanation.e1[: explanation.n_image]


def text_terms(explanation):
    """First-order terms of the caption's players."""
    return explanation.e1[explanation.n_image :]
