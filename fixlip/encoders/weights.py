"""The weights of a checkpoint put into a model: every name matched and every shape compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from open_clip.convert import convert_state_dict
from torch import nn

from fixlip.checks import warn
from fixlip.encoders.architectures import architectures_of, without_text

# names that wrappers put into those of a model's weights: DataParallel and its kin, torch.compile,
# sharding, checkpointing; and the dictionaries of a module that was pickled whole
WRAPPERS = re.compile(
    r"(?:^|(?<=[./]))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module"
    r"|_modules|_parameters|_buffers)[./]"
)
# tensors that are not learned: a model computes them or states them elsewhere
NOT_LEARNED = {"attn_mask", "position_ids", "n_averaged"}
NOT_LEARNED |= {"input_resolution", "context_length", "vocab_size"}  # in OpenAI's own files
SHOWN = 3  # names in a message


def put_weights(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], name: str, what: str
) -> None:
    """Put the tensors of a file, as `read_tensors` gives them, into a model of open_clip.

    The model's weights are those tensors whose names end as the model's do, in whatever dictionary
    and behind whatever prefix the most of them are. ``name`` and ``what`` are what the model and
    the weights are called in messages. The model becomes float64 where the weights are.

    Warns where another set of weights fits as well, or where weights beside the model's are left
    out. Raises ValueError if a weight is missing, not the model's, or of another shape or kind.
    """
    bare = {WRAPPERS.sub("", key): tensor for key, tensor in tensors.items()}
    bare, twice = convert_state_dict(model, bare), len(bare) < len(tensors)  # MobileCLIP's names
    own = {without_text(key): key for key in model.state_dict()}
    prefix, *others = _prefixes(bare, own)
    if model.logit_bias is None and f"{prefix}logit_bias" in bare:  # trained with SigLIP's loss
        model.logit_bias = nn.Parameter(torch.zeros_like(model.logit_scale))
        own["logit_bias"] = "logit_bias"
    matched = {key: own[inner] for key in bare if (inner := _inner(key, prefix)) in own}
    found = {matched[key]: bare[key] for key in matched}
    if twice or len(found) < len(matched):
        raise ValueError(
            f"{what} hold tensors of one name, with and without a part such as 'module.'; save the "
            "set that is meant to a file of its own"
        )
    places = {_place(key) for key in matched or bare}
    rest = [key for key in bare if key not in matched and _place(key) in places]
    rest = [key for key in rest if re.split("[./]", key)[-1] not in NOT_LEARNED]
    unexpected = {_inner(key, prefix): bare[key] for key in rest if key.startswith(prefix)}
    beside = [repr(key) for key in rest if not key.startswith((prefix, *others))]
    no_bias = model.logit_bias is not None and "logit_bias" not in found
    if no_bias:
        found["logit_bias"] = torch.zeros_like(model.logit_bias)
    _refuse_misfits(model, found, unexpected, name, what)
    if no_bias:
        warn(f"{what} hold no logit_bias, which {name!r} has: it is taken as 0")
    if others:
        warn(
            f"{what} hold {1 + len(others)} sets that fit: {_path(prefix)} is taken, not "
            f"{_some(map(_path, others))}; to use another, save it to a file of its own"
        )
    if beside:
        warn(f"{what} hold others beside the model's, which are left out: {_some(beside)}")
    if any(tensor.dtype == torch.float64 for tensor in found.values()):
        model.double()
    model.load_state_dict(found)


def _prefixes(tensors: Iterable[str], own: Mapping[str, str]) -> list[str]:
    """Return what stands before the model's names where most of them are, the likeliest first."""
    counts = Counter({"": 0})
    for key in tensors:
        for start in (0, *(between.end() for between in re.finditer("[./]", key))):
            if _inner(key, key[:start]) in own:
                counts[key[:start]] += 1
    most = max(counts.values())
    best = (prefix for prefix in counts if counts[prefix] == most)
    return sorted(best, key=lambda prefix: "ema" in prefix or "optim" in prefix)


def _inner(key: str, prefix: str) -> str | None:
    """Return the part of a name after the prefix, as `open_clip.CLIP` would call it."""
    if not key.startswith(prefix):
        return None
    return without_text(key.removeprefix(prefix).replace("/", "."))


def _place(key: str) -> str:
    """Return the path of the dictionary that holds a tensor."""
    return key.rpartition("/")[0]


def _path(prefix: str) -> str:
    return repr(prefix.rstrip("./").replace("/", "."))


def _some(phrases: Iterable[str]) -> str:
    """Return the first of some phrases, and how many more there are."""
    phrases = list(phrases)
    more = [f"{len(phrases) - SHOWN} more"] if len(phrases) > SHOWN else []
    return ", ".join(phrases[:SHOWN] + more)


def _refuse_misfits(
    model: nn.Module,
    found: dict[str, torch.Tensor],
    unexpected: Mapping[str, torch.Tensor],
    name: str,
    what: str,
) -> None:
    """Raise if a weight is missing, unexpected, or of another shape or kind."""
    own, differ = model.state_dict(), []
    for key, tensor in found.items():
        if tensor.numel() == own[key].numel() == 1:  # a number, saved as one or as a list of one
            found[key] = tensor = tensor.reshape(own[key].shape)
        if tensor.shape != own[key].shape:
            differ.append(f"{key!r} is {_size(tensor)} and must be {_size(own[key])}")
        elif not _is_plain(tensor) or tensor.is_floating_point() != own[key].is_floating_point():
            differ.append(f"{key!r} is {_type(tensor)} and must be {_type(own[key])}")
    missing = [key for key in own if key not in found]
    if not (differ or missing or unexpected):
        return
    start = f"{what} do not load into {name!r}: "
    given = {without_text(key): tensor for key, tensor in found.items()} | dict(unexpected)
    if any("lora_" in key for key in given):
        raise ValueError(f"{start}they are changes (LoRA); merge them into the weights first")
    if any(key.startswith(("vision_model.", "text_model.")) for key in given):
        raise ValueError(f"{start}they are in the format of transformers; give open_clip's own")
    parts = [_some(differ)] if differ else []
    for kind, keys in (("missing", missing), ("unexpected", unexpected)):
        parts += [f"{len(keys)} {kind} ({_some(map(repr, keys))})"] if keys else []
    fitting = architectures_of({key: tuple(tensor.shape) for key, tensor in given.items()})
    if fitting and name not in fitting:
        parts.append(f"they fit {' or '.join(map(repr, fitting))}: load that")
    raise ValueError(start + "; ".join(parts))


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor has its numbers, one for each entry."""
    return not tensor.is_meta and tensor.layout == torch.strided


def _size(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def _type(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return f"{name} without its numbers"
    return name if _is_plain(tensor) else f"sparse {name}"
