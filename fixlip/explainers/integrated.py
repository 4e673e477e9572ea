"""Derivatives of an embedding along a line of hidden states: a vector per token, no Jacobian.

What exCLIP and InteractionCAM share: of every token, the derivatives along its own part of the line
are summed over the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from fixlip import renamed
from fixlip.checks import integer, number, one_of
from fixlip.encoders.hooks import keep_states
from fixlip.encoders.opened import OpenTower, forward_mode
from fixlip.encoders.sides import EncoderSide, ImageSide
from fixlip.explainers.results import from_rows
from fixlip.solver import Factor

REFERENCES = {"image": ("zero", "gaussian", "vectors"), "text": ("padding", "empty", "vectors")}
# As published: steps (the exCLIP paper's, whose code has 10 by default; the FIxLIP experiments'),
# and padding tokens between start and end of the reference.
VARIANTS = {"tmlr": (50, 1), "fixlip": (20, 2)}
RULES = {"right": 1.0, "midpoint": 0.5}  # where in a step


class Line:
    """The straight line from a reference to a side's input, at the input of a block.

    Parameters as in `fixlip.explainers.exclip.factor`.
    """

    @torch.inference_mode(False)  # whose tensors have no derivatives
    def __init__(
        self,
        side: EncoderSide,
        layer: int,
        reference: str | None,
        *,
        variant: str = "tmlr",
        normalise: bool = True,
        seed: int = 0,
    ) -> None:
        one_of("variant", variant, VARIANTS)
        self.tower = OpenTower(side, layer)
        keep_states(side.encoder.model)  # the user may have switched it on since
        if side.encoder.half:
            raise ValueError(
                f"the encoder computes in {side.encoder.dtype}, too coarse for derivatives along a "
                "path; load it with dtype=torch.float32"
            )
        known = REFERENCES[side.info["kind"]]
        reference = known[0] if reference is None else reference
        one_of(f"the reference of the {side.info['kind']} side", reference, known)
        inputs = _reference(side, reference, VARIANTS[variant][1], seed)
        hidden = self.tower.hidden
        self.start = torch.zeros_like(hidden) if inputs is None else self.tower.read(inputs)
        self.delta = hidden - self.start  # (1, T, width)
        self.length = self._length(inputs, variant) if normalise else 1.0
        self._options = {"layer": self.tower.layer, "reference": reference, "variant": variant}
        self._options |= {"normalise": normalise, "seed": seed}

    @torch.no_grad()
    def _length(self, inputs: torch.Tensor | None, variant: str) -> float:
        """What the embeddings are divided by: the length of the input's own, or of its shift."""
        embedding = self.tower.embed(self.tower.hidden)  # (1, D)
        if variant == "fixlip":  # the reference as the model embeds it, pooled at its own end token
            own = self.tower.embed(self.start) if inputs is None else self.tower.encode(inputs)
            embedding = embedding - own
        length = float(embedding.cpu().double().norm())
        if not length > 0:  # NaN as well
            raise ValueError(
                f"the embedding has length {length}, so its map cannot be normalised: check the "
                "model's weights, or that the input differs from the reference"
            )
        return length

    @torch.no_grad()
    def ends(self) -> torch.Tensor:
        """Embeddings of the reference and of the input, over the length, (2, D), float64."""
        states = torch.cat([self.start, self.tower.hidden])  # (2, T, width)
        return self.tower.embed(states).cpu().double() / self.length

    @torch.inference_mode(False)
    def factor(
        self, name: str, *, steps: int, rule: str = "right", mode: str, memory: float
    ) -> Factor:
        """The factor of a method of this name; the rest as in `exclip.factor`."""
        integer("steps", steps)
        one_of("rule", rule, RULES)
        number("memory, in GiB,", memory, above=0)
        rows, D = self.tower.rows, len(self.ends()[0])
        modes = {"forward": self._forward, "reverse": self._reverse}
        one_of("mode", mode, ("auto", *modes))
        if mode == "auto":
            mode = "forward" if len(rows) <= D else "reverse"
        T, width = self.delta.shape[1:]
        # What a block holds at once: 16 vectors per token, and per head of 64 dimensions 4 numbers
        # per pair of tokens. A block that computes one token holds these for that token alone, and
        # the values of all.
        numbers = T * width * (16 + T / 16)
        if self.tower.direct and mode == "forward":
            numbers = width * (16 + T)
        at_once = max(1, int(memory * 2**30 / (numbers * self.delta.element_size())))
        alphas = (torch.arange(steps, dtype=torch.float64) + RULES[rule]).div(steps).to(self.delta)
        vectors = modes[mode](alphas, at_once) / (steps * self.length)  # (k + n, D)
        return from_rows(self.tower, vectors, name, self._options | {"steps": steps, "rule": rule})

    @torch.no_grad()
    def _forward(self, alphas: torch.Tensor, at_once: int) -> torch.Tensor:
        """Derivatives along each row's move, summed over the steps, (k + n, D)."""
        rows = self.tower.rows.to(self.delta)  # (k + n, T)
        zero, total = torch.zeros_like(rows[0]), 0.0
        with forward_mode():
            for some in alphas.split(max(1, at_once // len(rows))):
                embed = self.tower.gated(self._states(some), self.delta)
                along = partial(_derivative, embed, zero)
                derivatives = torch.vmap(along, chunk_size=at_once)(rows)  # (k + n, S, D)
                total = total + derivatives.cpu().double().sum(1)
        return total

    @torch.enable_grad()
    def _reverse(self, alphas: torch.Tensor, at_once: int) -> torch.Tensor:
        """The same from the gradient of each embedding dimension."""
        total = 0.0
        for some in alphas.split(at_once):
            states = self._states(some).requires_grad_(True)
            embeddings = self.tower.embed(states).sum(0)  # (S, D) -> (D,): steps do not mix
            derivatives = []
            for one in embeddings:
                (gradient,) = torch.autograd.grad(one, states, retain_graph=True)
                derivatives.append((gradient * self.delta).sum(2).cpu().double().sum(0))  # (T,)
            total = total + torch.stack(derivatives)  # (D, T)
        return self.tower.rows.double() @ total.T  # (k + n, D)

    def _states(self, alphas: torch.Tensor) -> torch.Tensor:
        return self.start + alphas[:, None, None] * self.delta  # (S, T, width)


def _derivative(function: Callable, at: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    return torch.func.jvp(function, (at,), (along,))[1]


def _reference(side: EncoderSide, reference: str, padding: int, seed: int) -> torch.Tensor | None:
    """The reference's pixels (1, 3, H, W) or token ids (1, L); None for hidden states of zero."""
    if reference == "vectors":
        return None
    if isinstance(side, ImageSide):
        if reference == "zero":
            return torch.zeros_like(side.pixels)
        noise = torch.randn(side.pixels.shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(side.pixels)
    empty = torch.as_tensor(side.encoder.tokenizer([""])).flatten().tolist()
    start, pad = side.span.start, empty[-1]
    if reference == "padding":
        empty = [*empty[:start], *[pad] * padding, *empty[start:]][: len(empty)]
    return torch.tensor([empty], device=side.ids.device)


renamed.watch(__name__)
