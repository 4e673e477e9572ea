"""Train a demo model from scratch: `python data/world/train.py demo-clip --out runs/demo-clip`.

The models are open_clip's own classes. Everything is scheduled by step and seeded: a run can be
stopped, goes on from its checkpoint, and ends with the same weights. Where the checkpoint is gone,
`--restart` goes on from the half-precision weights beside it, with a warm-up of its own, which the
recipe records.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import open_clip
import torch
from batches import Batch, Batches
from losses import sigmoid_loss, softmax_loss
from recipes import RECIPES, Recipe, learning_rate, model_config
from safetensors.torch import load_file, save
from torch.nn.functional import interpolate, normalize
from vocabulary import write_tokenizer

from fixlip.encoders.demo_towers import register_towers
from fixlip.files import atomic, user_path

WEIGHTS = "open_clip_model.safetensors"


def build_model(name: str) -> torch.nn.Module:
    """A demo model with fresh weights, from open_clip's own classes."""
    register_towers()
    config = model_config(name)["model_cfg"]
    custom = config.pop("custom_text", False)
    return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)


def encode_image(
    model: torch.nn.Module, images: torch.Tensor, patches: torch.Tensor
) -> torch.Tensor:
    """Embeddings (R, D), normalised, of images (R, 3, H, W) uint8 with some patches hidden.

    A hidden patch is grey: 0 after normalisation, as `fixlip` hides it.
    """
    pixels = images.float() / 127.5 - 1
    shown = interpolate(
        patches[:, None].float(), scale_factor=pixels.shape[-1] // patches.shape[-1]
    )
    return model.encode_image(pixels * shown, normalize=True)


def encode_text(model: torch.nn.Module, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Embeddings (C, D), normalised, of captions with some tokens hidden from attention.

    With nothing hidden, exactly `model.encode_text`. `ids` and `keep` (C, L).
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
        hidden = torch.zeros(keep.shape).to(ids.device)
        hidden = hidden.masked_fill(~keep, -math.inf)[:, None, :]  # (C, 1, L)
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


def batch_loss(model: torch.nn.Module, batch: Batch, kind: str) -> torch.Tensor:
    """The training loss of one batch.

    The sigmoid loss goes with a share of the softmax loss, which sets a caption against its own
    negatives: alone, it is slow to find which thing is where.
    """
    images = encode_image(model, batch.images, batch.patches)  # (R, D)
    texts = encode_text(model, batch.ids, batch.keep)  # (C, D)
    logits = model.logit_scale.exp() * images @ texts.T  # (R, C)
    loss = softmax_loss(logits, batch)
    if kind == "siglip":
        loss = loss + 0.2 * sigmoid_loss(logits + model.logit_bias, batch)
    return loss


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for the matrices of transformer blocks, in single precision.

    Source: K. Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; the scale of the
    updates is that of Liu et al. 2025 (arXiv:2502.16982), equation 4. `torch.optim.Muon` does the
    same in bfloat16, which costs a second a step on a CPU.
    """

    def __init__(self, parameters, *, lr: float, momentum: float = 0.95, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        """One update of every matrix; the three of an attention's input are taken apart."""
        for group in self.param_groups:
            for p in group["params"]:
                moment = self.state[p].setdefault("momentum", torch.zeros_like(p))
                moment.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(moment, group["momentum"])
                parts = update.chunk(3) if p.shape[0] == 3 * p.shape[1] else [update]
                scale = 0.2 * math.sqrt(max(parts[0].shape))
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(torch.cat([orthogonal(part) for part in parts]), alpha=-group["lr"] * scale)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal rows or columns, roughly: five Newton-Schulz steps."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide is matrix else x.T


def make_optimisers(model: torch.nn.Module) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for the matrices of the blocks, AdamW for the rest; vectors, positions: no decay."""
    blocks, decay, rest = [], [], []
    for name, p in model.named_parameters():
        if p.ndim == 2 and (".resblocks." in name or ".blocks." in name):
            blocks.append(p)
        else:
            (decay if p.ndim > 1 and "pos" not in name else rest).append(p)
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))
    return Muon(blocks, lr=2e-3, weight_decay=0.05), adam


def write_model(model: torch.nn.Module, name: str, folder: Path) -> None:
    """Write an open_clip ``local-dir:`` folder: configuration, tokenizer, weights in float16."""
    config = model_config(name)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    length = config["model_cfg"]["text_cfg"]["context_length"]
    write_tokenizer(folder, RECIPES[name].kind, length=length)
    weights = {k: v.half().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic(folder / WEIGHTS) as file:
        file.write(save(weights))


def train(
    name: str,
    out: Path,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    stop: int | None = None,
    minutes: float = math.inf,
    resume: bool = False,
    restart: int | None = None,
    device: str = "cpu",
    save_every: int = 100,
) -> torch.nn.Module:
    """Train a demo model and write it as an open_clip ``local-dir:`` folder.

    Parameters
    ----------
    name : {"demo-clip", "demo-siglip", "demo-clip-fine"}
    out : Path
        Folder for the model, its log (``train_log.jsonl``) and, until the last step is done, its
        checkpoint (``checkpoint.pt``).
    recipe : Recipe, optional
        By default ``RECIPES[name]``.
    seed : int
    stop : int, optional
        Stop after this many steps without changing the schedule.
    minutes : float
        Stop after so much time, likewise.
    resume : bool
        Go on from the checkpoint in `out`.
    restart : int, optional
        Go on at this step from the half-precision weights in `out`.
    device : str
    save_every : int
        Steps between checkpoints.
    """
    recipe = recipe or RECIPES[name]
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, path = out / "checkpoint.pt", out / "train_log.jsonl"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(name)
    first, spent = 0, 0.0
    if restart is not None:
        recipe = replace(recipe, restarts=(*recipe.restarts, restart))
        model.load_state_dict({k: v.float() for k, v in load_file(out / WEIGHTS).items()})
        first = restart
    elif recipe.start_from and not resume:
        start_from(model, out.parent / recipe.start_from)
    model.to(device)
    optimisers = make_optimisers(model)
    if resume:
        if not checkpoint.is_file():
            raise FileNotFoundError(f"nothing to resume: {checkpoint} does not exist")
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, old in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(old)
        first, spent = state["step"], state["cpu_seconds"]
        recipe = replace(recipe, restarts=tuple(state["restarts"]))
    lines = path.read_text().splitlines()[1:] if first else []
    lines = [line for line in lines if json.loads(line)["step"] <= first]
    spent = max([spent, *(json.loads(line)["cpu_seconds"] for line in lines)])
    last = recipe.steps if stop is None else min(stop, recipe.steps)
    batches = torch.utils.data.DataLoader(
        Batches(recipe, seed), batch_size=None, sampler=range(first, last), num_workers=1
    )
    head = json.dumps({"name": name, "seed": seed, **asdict(recipe)})
    with atomic(path) as file:
        file.write("".join(f"{line}\n" for line in [head, *lines]).encode())
    log = path.open("a")
    model.train()
    losses, started, begun = [], _cpu_seconds(), time.monotonic()
    for step, batch in zip(range(first, last), batches, strict=True):
        batch = Batch(
            *(v.to(device) if isinstance(v, torch.Tensor) else v for v in vars(batch).values())
        )
        rate = learning_rate(recipe, step)
        for optimiser, share in zip(optimisers, (1.0, 0.5), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * share
        loss = batch_loss(model, batch, recipe.kind)
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        late = time.monotonic() - begun > 60 * minutes
        cpu_seconds = spent + _cpu_seconds() - started
        if (step + 1) % 50 == 0 or step + 1 == last or late:
            entry = {
                "step": step + 1,
                "loss": round(sum(losses) / len(losses), 4),
                "scale": round(model.logit_scale.exp().item(), 2),
                "cpu_seconds": round(cpu_seconds, 1),
                "seconds": round(time.monotonic() - begun, 1),
            }
            log.write(json.dumps(entry) + "\n")
            log.flush()
            losses = []
        if (step + 1) % save_every == 0 or step + 1 == last or late:
            state = {
                "model": model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "restarts": list(recipe.restarts),
                "step": step + 1,
                "cpu_seconds": cpu_seconds,
            }
            with atomic(checkpoint) as file:
                torch.save(state, file)
            write_model(model, name, out)
        if late:
            break
    log.close()
    if step + 1 == recipe.steps:
        checkpoint.unlink(missing_ok=True)
    return model.eval()


def _cpu_seconds() -> float:
    return time.process_time()


def start_from(model: torch.nn.Module, folder: Path) -> None:
    """Start from the weights of a coarser model: patches and positions are resampled.

    Source: Beyer et al. 2023, FlexiViT (arXiv:2212.08013), section 3.4: the pseudo-inverse resize
    of the patch embedding.
    """
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    weights = {k: v.float() for k, v in load_file(folder / WEIGHTS).items()}
    patches, positions = "visual.conv1.weight", "visual.positional_embedding"
    size = list(model.visual.conv1.kernel_size)
    weights[patches] = resample_patch_embed(weights[patches], size)
    grid = list(model.visual.grid_size)
    resampled = resample_abs_pos_embed(weights[positions][None], grid, num_prefix_tokens=1)
    weights[positions] = resampled[0]
    model.load_state_dict(weights)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--out", type=user_path, required=True, help="folder")
    parser.add_argument("--steps", type=int, help="length of the schedule")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", type=int, help="stop here, keeping the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop then, likewise")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--restart", type=int, help="go on at this step from the weights in --out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.name]
    if options.steps:
        recipe = recipe.scaled(options.steps)
    train(
        options.name,
        options.out,
        recipe=recipe,
        seed=options.seed,
        stop=options.stop,
        minutes=options.minutes,
        resume=options.resume,
        restart=options.restart,
        device=options.device,
    )


if __name__ == "__main__":
    main()
