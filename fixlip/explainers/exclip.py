"""exCLIP: interactions of patches and words by integrated Jacobians, without the Jacobians.

Each input moves on a straight line from a reference to itself, at the hidden states of one layer.
The interaction of patch s and token t is the inner product of what their moves add to the image's
embedding g and to the caption's h (exCLIP paper, eq. 9 and 10):

    A[s, t] = <V_g[s], V_h[t]> / (|g(a)| |h(b)|),
    V_g[s] = 1/N sum_n J_g(x_n)[:, s] (a - r)[s],   x_n = r + n/N (a - r),   n = 1..N.

V_g[s], of width D, is a derivative along one direction: one pass per token and step in forward
mode, or one per embedding dimension in reverse mode. The Jacobian, D x tokens x width numbers in
each step, is never formed. Summed over all tokens, V_g tends to g(a) - g(r), and so A to
f(a,b) - f(r_a,b) - f(a,r_b) + f(r_a,r_b), with f(a,b) = <g(a), h(b)> / (|g(a)| |h(b)|) (eq. 2).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from fixlip.explainers.layers import Tower, forward_mode
from fixlip.explainers.maps import Factor, FactorPair
from fixlip.sides import ImageSide, TextSide

Side = ImageSide | TextSide
References = tuple[str | None, str | None]
REFERENCES = {"image": ("zero", "gaussian", "vectors"), "text": ("padding", "empty", "vectors")}
# What the published codes do: steps, and padding tokens between start and end of the reference.
VARIANTS = {"tmlr": (50, 1), "fixlip": (20, 2)}
RULES = {"right": 1.0, "midpoint": 0.5}  # where in a step


class Corners(NamedTuple):
    """The similarities f of both inputs, and with one or both of them at the reference."""

    inputs: float
    image_reference: float
    text_reference: float
    references: float

    @property
    def total(self) -> float:
        """f(a,b) - f(r_a,b) - f(a,r_b) + f(r_a,r_b)."""
        return self.inputs - self.image_reference - self.text_reference + self.references


def explain(
    image_side: Side,
    text_side: Side,
    *,
    layer: int = -1,
    steps: int | None = None,
    rule: str = "right",
    references: References = (None, None),
    variant: str = "tmlr",
    normalise: bool = True,
    scale: float = 1.0,
    seed: int = 0,
    method: str = "auto",
    memory: float = 0.25,
) -> FactorPair:
    """Interactions of the players of two sides, image and caption or any two of one encoder.

    Parameters
    ----------
    image_side, text_side : ImageSide or TextSide
    references : tuple of two str
        The reference of each side.
    scale : float
        Multiplies the map; ``encoder.logit_scale`` gives shares of the logit.
    layer, steps, rule, variant, normalise, seed, method, memory
        As in `factor`.

    Examples
    --------
    >>> from fixlip import load
    >>> encoder = load("demo-clip", device="cpu")
    >>> picture = torch.zeros(48, 48, 3, dtype=torch.uint8).numpy()
    >>> pair = explain(encoder.image(picture), encoder.text("a red star"), steps=2)
    >>> pair.cross.shape, pair.full.shape
    ((36, 3), (37, 5))
    """
    image, text = (
        factor(
            side,
            layer=layer,
            steps=steps,
            rule=rule,
            reference=reference,
            variant=variant,
            normalise=normalise,
            seed=seed,
            method=method,
            memory=memory,
        )
        for side, reference in zip((image_side, text_side), references, strict=True)
    )
    return FactorPair(image, text, scale)


def factor(
    side: Side,
    *,
    layer: int = -1,
    steps: int | None = None,
    rule: str = "right",
    reference: str | None = None,
    variant: str = "tmlr",
    normalise: bool = True,
    seed: int = 0,
    method: str = "auto",
    memory: float = 0.25,
) -> Factor:
    """One side's half of the interactions: what each player's move adds to the embedding.

    Parameters
    ----------
    side : ImageSide or TextSide
    layer : int
        Hidden states at the input of this block, from 0. The last block's is the published choice.
    steps : int, optional
        N; by default 50 ("tmlr") or 20 ("fixlip").
    rule : {"right", "midpoint"}
        Where a step is evaluated: at its end, as published, with an error that falls as 1/N; or in
        its middle, with an error that falls as 1/N^2 for the same passes.
    reference : str, optional
        Of an image "zero", the mean colour, or "gaussian", normal noise in normalised pixels; of a
        caption "padding", padding tokens between start and end, or "empty", no tokens there; of
        both "vectors", zeros in place of the hidden states. By default "zero" and "padding".
    variant : {"tmlr", "fixlip"}
        As published in TMLR, or the earlier form that the FIxLIP experiments use: the embeddings
        are shifted by the reference's own embedding before their lengths are taken.
    normalise : bool
        Divide by the length of the input's embedding, so that maps are shares of a cosine.
    seed : int
        Of "gaussian".
    method : {"auto", "forward", "reverse"}
        Differentiate along each token and special row, or for each embedding dimension; "auto"
        takes what needs fewer passes. The numbers are the same.
    memory : float
        GiB for the hidden states of one pass, roughly; the model and torch come on top.

    Returns
    -------
    Factor
        ``special`` holds CLS, start, end and padding tokens: completeness needs them.

    Raises
    ------
    TypeError, ValueError
        For an unknown option, an encoder in half precision, or an embedding of length zero.

    References
    ----------
    Möller, Tilli, Vu and Padó, Explaining Caption-Image Interactions in CLIP Models with
    Second-Order Attributions, TMLR 2025, eq. 6 to 11.
    """
    path = Path(side, layer, reference, variant=variant, normalise=normalise, seed=seed)
    if steps is None:
        steps = VARIANTS[variant][0]
    return path.factor("exclip", steps=steps, rule=rule, method=method, memory=memory)


def corners(
    image_side: Side,
    text_side: Side,
    *,
    layer: int = -1,
    references: References = (None, None),
    variant: str = "tmlr",
    normalise: bool = True,
    scale: float = 1.0,
    seed: int = 0,
) -> Corners:
    """The four scores of eq. 2: ``corners(...).total`` is the limit of ``explain(...).full.sum()``.

    Inner products, all divided by the lengths of the inputs' embeddings, so no cosines where a
    reference takes part; a reference caption is pooled at the input's own end token, as the
    interpolated hidden states are. Parameters as in `explain`.
    """
    (r_a, a), (r_b, b) = (
        Path(side, layer, reference, variant=variant, normalise=normalise, seed=seed).ends()
        for side, reference in zip((image_side, text_side), references, strict=True)
    )
    return Corners(*(scale * float(x @ y) for x, y in ((a, b), (r_a, b), (a, r_b), (r_a, r_b))))


class Path:
    """The straight line from a reference to a side's input, at the input of a block.

    Parameters
    ----------
    side, layer, reference, variant, normalise, seed
        As in `factor`.
    """

    def __init__(
        self,
        side: Side,
        layer: int,
        reference: str | None,
        *,
        variant: str = "tmlr",
        normalise: bool = True,
        seed: int = 0,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is unknown; expected one of {tuple(VARIANTS)}")
        self.tower = Tower(side, layer)
        if self.tower.hidden.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the encoder computes in {side.encoder.dtype}, too coarse for derivatives along a "
                "path; load it with dtype=torch.float32"
            )
        known = REFERENCES[side.info["kind"]]
        reference = known[0] if reference is None else reference
        if reference not in known:
            raise ValueError(
                f"reference {reference!r} of the {side.info['kind']} side is unknown; expected "
                f"one of {known}"
            )
        inputs = _reference(side, reference, VARIANTS[variant][1], seed)
        hidden = self.tower.hidden
        self.start = torch.zeros_like(hidden) if inputs is None else self.tower.read(inputs)
        self.delta = hidden - self.start  # (1, T, width)
        self.length = self._length(inputs, variant) if normalise else 1.0
        self._options = {
            "layer": self.tower.layer,
            "reference": reference,
            "variant": variant,
            "normalise": normalise,
            "seed": seed,
        }

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

    def factor(
        self, name: str, *, steps: int, rule: str = "right", method: str, memory: float
    ) -> Factor:
        """The factor of a method of this name; parameters as in the function `factor`."""
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {steps!r}")
        if rule not in RULES:
            raise ValueError(f"rule {rule!r} is unknown; expected one of {tuple(RULES)}")
        if not memory > 0:
            raise ValueError(f"memory must be a positive number of GiB, got {memory!r}")
        rows, D = self.tower.rows, len(self.ends()[0])
        modes = {"forward": self._forward, "reverse": self._reverse}
        if method not in ("auto", *modes):
            raise ValueError(f"method {method!r} is unknown; expected 'auto', {tuple(modes)}")
        if method == "auto":
            method = "forward" if len(rows) <= D else "reverse"
        T, width = self.delta.shape[1:]
        # A block holds some 16 vectors per token, and 4 numbers per pair of tokens in each head of
        # some 64 dimensions; where it computes one token only, of that one, and all values once.
        numbers = T * width * (16 + T / 16)
        if self.tower.direct and method == "forward":
            numbers = width * (16 + T)
        at_once = max(1, int(memory * 2**30 / (numbers * self.delta.element_size())))
        alphas = (torch.arange(steps, dtype=torch.float64) + RULES[rule]).div(steps).to(self.delta)
        vectors = modes[method](alphas, at_once) / (steps * self.length)  # (k + n, D)
        side, k = self.tower.side, len(self.tower.special_names)
        return Factor(
            vectors[k:].numpy(),
            side.names,
            side.info["kind"],
            vectors[:k].numpy(),
            self.tower.special_names,
            {
                **side.info,
                "method": name,
                "options": {**self._options, "steps": steps, "rule": rule},
            },
            getattr(side, "picture", None),
        )

    @torch.no_grad()
    def _forward(self, alphas: torch.Tensor, at_once: int) -> torch.Tensor:
        """Derivatives along each row's move, summed over the steps, (k + n, D)."""
        rows = self.tower.rows.to(self.delta)  # (k + n, T)
        zero, total = torch.zeros_like(rows[0]), 0.0
        with forward_mode():
            for some in alphas.split(max(1, at_once // len(rows))):
                embed = self.tower.gated(self._states(some), self.delta)
                along = partial(_derivative, embed, zero)
                moved = torch.vmap(along, chunk_size=at_once)(rows)  # (k + n, S, D)
                total = total + moved.cpu().double().sum(1)
        return total

    @torch.enable_grad()
    def _reverse(self, alphas: torch.Tensor, at_once: int) -> torch.Tensor:
        """The same from the gradient of each embedding dimension."""
        total = 0.0
        for some in alphas.split(at_once):
            states = self._states(some).requires_grad_(True)
            embeddings = self.tower.embed(states).sum(0)  # (S, D) -> (D,): steps do not mix
            moved = []
            for one in embeddings:
                (gradient,) = torch.autograd.grad(one, states, retain_graph=True)
                moved.append((gradient * self.delta).sum(2).cpu().double().sum(0))  # (T,)
            total = total + torch.stack(moved)  # (D, T)
        return self.tower.rows.double() @ total.T  # (k + n, D)

    def _states(self, alphas: torch.Tensor) -> torch.Tensor:
        return self.start + alphas[:, None, None] * self.delta  # (S, T, width)


def _derivative(function: Callable, at: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    return torch.func.jvp(function, (at,), (along,))[1]


def _reference(side: Side, reference: str, padding: int, seed: int) -> torch.Tensor | None:
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
