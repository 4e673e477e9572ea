"""Train a demo model from scratch on one CPU core: `python data/demo_models/train.py demo-clip`.

The models are open_clip's own classes, the losses are open_clip's own with the exact truth of every
caption about every image in place of "only the diagonal is true". Everything is scheduled by step
and seeded, so a run can be killed, resumed from its checkpoint, and ends with the same weights.
"""

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path

import open_clip
import torch
from batches import Batch, make_batch
from losses import ExactClipLoss, ExactSigLipLoss, PlaceProbe
from recipes import RECIPES, Recipe, learning_rate, model_config
from safetensors.torch import load_file, save
from torch.nn.functional import normalize

from fixlip.demo.tokenizers import write_tokenizer
from fixlip.encoders.demo_towers import register_towers
from fixlip.files import atomic, user_path

MODELS = Path(__file__).parents[2] / "fixlip" / "demo" / "models"


def build_model(name: str, *, patch_dropout: float = 0.0) -> torch.nn.Module:
    """A demo model with fresh weights, from open_clip's own classes."""
    register_towers()
    config = model_config(name)["model_cfg"]
    config["vision_cfg"]["patch_dropout"] = patch_dropout
    custom = config.pop("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)


def encode_text(model: torch.nn.Module, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Embed captions with some tokens hidden from attention, ids and positions unchanged.

    Parameters
    ----------
    model : open_clip.CLIP or open_clip.CustomTextCLIP
    ids : (C, L) int64
    keep : (C, L) bool, False = hidden

    Returns
    -------
    torch.Tensor
        (C, D) normalised embeddings; with nothing hidden, exactly `model.encode_text`.
    """
    text = getattr(model, "text", model)
    if text.attn_mask is None:
        return _encode_text(text, ids, keep)
    # Nothing sees what follows the end token: shorter captions are embedded without their padding.
    lengths = (ids != 0).sum(dim=1)
    order = lengths.argsort(stable=True)
    parts = []
    for rows in order.chunk(4):
        length = int(lengths[rows].max())
        parts.append(_encode_text(text, ids[rows, :length], keep[rows, :length]))
    return torch.cat(parts)[order.argsort()]


def _encode_text(text: torch.nn.Module, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    length = ids.shape[1]
    mask = text.attn_mask  # (context, context) if causal
    mask = None if mask is None else mask[:length, :length]
    if not keep.all():
        hidden = torch.zeros(keep.shape).masked_fill_(~keep, -math.inf)[:, None, :]  # (C, 1, L)
        mask = hidden.expand(-1, length, -1) if mask is None else hidden + mask  # (C, L, L)
        heads = text.transformer.resblocks[0].attn.num_heads
        mask = mask.repeat_interleave(heads, dim=0)  # (C * heads, L, L)
    x = text.token_embedding(ids) + text.positional_embedding[:length]  # (C, L, width)
    x = text.ln_final(text.transformer(x, attn_mask=mask))
    if text.attn_mask is None:
        x = text.text_projection(x[:, -1])  # (C, D)
    else:
        x = x[torch.arange(len(ids)), ids.argmax(dim=1)] @ text.text_projection  # (C, D)
    return normalize(x, dim=-1)


def batch_loss(
    model: torch.nn.Module,
    batch: Batch,
    kind: str,
    *,
    softmax: bool = False,
    probe: PlaceProbe | None = None,
) -> torch.Tensor:
    """The training loss of one batch.

    `softmax` adds the softmax loss to the sigmoid loss. With the sigmoid loss alone these small
    models are slow to find which colour belongs to which shape; the softmax loss sets a caption
    against its own negatives and shortens that plateau. `probe` adds its own loss.
    """
    images = model.encode_image(batch.images, normalize=True)  # (B, D)
    texts = encode_text(model, batch.ids, batch.keep)  # (C, D)
    scale = model.logit_scale.exp()
    if kind == "clip":
        loss, weight = ExactClipLoss()(images, texts, scale, batch.truth, batch.own), 2
    else:
        loss = ExactSigLipLoss()(images, texts, scale, model.logit_bias, batch.truth)
        if softmax:
            loss = loss + 5 * ExactClipLoss()(images, texts, scale, batch.truth, batch.own)
        weight = 10
    if probe is not None:
        loss = loss + weight * probe(images, texts, batch.places, batch.orders)
    return loss


def make_optimiser(model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW; weights decay, everything one-dimensional and the positions do not."""
    decay = [p for n, p in model.named_parameters() if p.ndim > 1 and "pos" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim <= 1 or "pos" in n]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)


def write_model(model: torch.nn.Module, name: str, folder: Path) -> None:
    """Write an open_clip ``local-dir:`` folder: configuration, weights, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model_config(name)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(
        folder, RECIPES[name].kind, length=config["model_cfg"]["text_cfg"]["context_length"]
    )
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    with atomic(folder / "open_clip_model.safetensors") as file:
        file.write(save(weights))


def train(
    name: str,
    out: Path,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    stop: int | None = None,
    resume: bool = False,
    save_every: int = 250,
) -> torch.nn.Module:
    """Train a demo model and write it as an open_clip ``local-dir:`` folder.

    Parameters
    ----------
    name : {"demo-clip", "demo-siglip", "demo-siglip-fine"}
    out : Path
        Folder for the model, its log (``train_log.jsonl``) and, until the last step is done, its
        checkpoint (``checkpoint.pt``).
    recipe : Recipe, optional
        By default ``RECIPES[name]``.
    seed : int
    stop : int, optional
        Stop after this many steps without changing the schedule; go on later with `resume`.
    resume : bool
        Go on from the checkpoint in `out`.
    save_every : int
        Steps between checkpoints.
    """
    recipe = recipe or RECIPES[name]
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(name, patch_dropout=recipe.patch_dropout)
        probe = PlaceProbe(model_config(name)["model_cfg"]["embed_dim"])
    optimiser = make_optimiser(model)
    probe_optimiser = torch.optim.Adam(probe.parameters(), lr=1e-3)
    first, spent = 0, 0.0
    started = time.process_time()
    if resume:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"nothing to resume: {checkpoint} does not exist")
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        probe.load_state_dict(state["probe"])
        probe_optimiser.load_state_dict(state["probe_optimiser"])
        first, spent = state["step"], state["cpu_seconds"]
    elif recipe.start_from:
        start_from(model, MODELS / recipe.start_from)
    length = model.context_length
    path = out / "train_log.jsonl"
    lines = path.read_text().splitlines()[1:] if resume else []
    log = path.open("w")
    log.write(json.dumps({"name": name, "seed": seed, **asdict(recipe)}) + "\n")
    for line in lines:  # what a killed run logged after its last checkpoint is run again
        if json.loads(line)["step"] <= first:
            log.write(line + "\n")
    log.flush()
    last = recipe.steps if stop is None else min(stop, recipe.steps)
    model.train()
    losses = []
    for step in range(first, last):
        stage = "relations" if step >= recipe.relations else "binding"
        masking = step >= recipe.masking
        softmax = any(start <= step < end for start, end in recipe.softmax)
        placing = any(start <= step < end for start, end in recipe.places)
        batch = make_batch(
            seed,
            step,
            images=recipe.images,
            kind=recipe.kind,
            length=length,
            grid=recipe.grid,
            stage="singles" if step < recipe.singles else stage,
            masking=masking,
        )
        model.visual.train(not masking)  # patch dropout is the only thing that this switches
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step)
        with torch.random.fork_rng():  # patch dropout draws from torch's own generator
            torch.manual_seed(seed + step)
            loss = batch_loss(
                model, batch, recipe.kind, softmax=softmax, probe=probe if placing else None
            )
        optimiser.zero_grad()
        probe_optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        probe_optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        cpu_seconds = spent + time.process_time() - started
        if (step + 1) % 50 == 0 or step + 1 == last:
            entry = {
                "step": step + 1,
                "loss": round(sum(losses) / len(losses), 4),
                "scale": round(model.logit_scale.exp().item(), 2),
                "cpu_seconds": round(cpu_seconds, 1),
            }
            log.write(json.dumps(entry) + "\n")
            log.flush()
            losses = []
        if (step + 1) % save_every == 0 or step + 1 == last:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "probe": probe.state_dict(),
                "probe_optimiser": probe_optimiser.state_dict(),
                "step": step + 1,
                "cpu_seconds": cpu_seconds,
            }
            with atomic(checkpoint) as file:
                torch.save(state, file)
            write_model(model, name, out)
    log.close()
    if last == recipe.steps:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def start_from(model: torch.nn.Module, folder: Path) -> None:
    """Start from the weights of a coarser model: patches and positions are resampled.

    Source: Beyer et al. 2023, FlexiViT (arXiv:2212.08013), section 3.4: the pseudo-inverse resize
    of the patch embedding.
    """
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    weights = load_file(folder / "open_clip_model.safetensors")
    patches, positions = "visual.trunk.patch_embed.proj.weight", "visual.trunk.pos_embed"
    size = model.visual.trunk.patch_embed.patch_size
    grid = model.visual.trunk.patch_embed.grid_size
    weights[patches] = resample_patch_embed(weights[patches], list(size))
    weights[positions] = resample_abs_pos_embed(weights[positions], list(grid), num_prefix_tokens=0)
    model.load_state_dict(weights)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--out", type=user_path, help="folder (default: the package's own)")
    parser.add_argument("--steps", type=int, help="length of the schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", type=int, help="stop here, keeping the schedule")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.name]
    if options.steps:
        recipe = recipe.scaled(options.steps)
    train(
        options.name,
        options.out or MODELS / options.name,
        recipe=recipe,
        seed=options.seed,
        stop=options.stop,
        resume=options.resume,
    )


if __name__ == "__main__":
    main()
