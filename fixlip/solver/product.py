"""The product explanation: interactions of up to two players of each side, from the same sweeps.

Each side's embedding is fitted once, by an order-2 polynomial of its own masks with vectors as
coefficients: E^(z) = A_0 + sum_i A_i z_i + sum_{i<j} A_ij z_i z_j, and F^(y) alike with B. The
product is scale * <E^(z), F^(y)> + bias; the coefficient of z_i z_j y_t is scale * <A_ij, B_t>.

It is the least-squares fit of the game by products of such polynomials, under the weights w (x) v:
the projection on a tensor product of two spaces is P_I (x) P_T, and with one embedding dimension
after the other (P_I (x) P_T) sum_d E_d F_d = sum_d (P_I E_d)(P_T F_d) = <E^, F^>.
Its own order-2 fit is the explanation of `solve(order=2)`: that fit's terms lie in the tensor
product, and of nested projections the smaller one decides. Both hold for ridge=0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fixlip.checks import integer, warn
from fixlip.explanation import Explanation, Player, count_terms
from fixlip.solver.factor import Factor
from fixlip.solver.leastsquares import BLOCK

MAX_DEVIATIONS = 2**28  # most float32 entries kept for error bars: 1 GB


@dataclass(frozen=True, eq=False)
class VectorPolynomial:
    """One side's embedding as an order-2 polynomial of the side's masks.

    The terms' rows are coefficients of 1, z_i and z_i z_j. Both sides' are written in the same
    orthonormal basis, which holds all that their inner products need: r is at most the embedding
    width.
    """

    n: int  # players of the side
    p: float  # probability with which each is kept
    among: np.ndarray  # (k,): players that have pairs with each other
    terms: np.ndarray  # (1 + n + k (k - 1) / 2, r), float64
    deviations: np.ndarray | None = None  # (groups, rows of terms, r or fewer): added by each group

    def __post_init__(self) -> None:
        rows = count_terms(self.n, len(self.among))
        if self.terms.ndim != 2 or len(self.terms) != rows:
            raise ValueError(
                f"{self.n} players with pairs among {len(self.among)} need {rows} rows of terms; "
                f"got {self.terms.shape}"
            )

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Evaluate at masks (m, n), float: (m, r)."""
        i, j = self.pairs.T
        step = max(1, BLOCK // len(self.terms))
        result = np.empty((len(z), self.terms.shape[1]))
        for start in range(0, len(z), step):
            x = z[start : start + step]
            design = np.concatenate([np.ones((len(x), 1)), x, x[:, i] * x[:, j]], 1)
            result[start : start + step] = design @ self.terms
        return result

    @cached_property
    def pairs(self) -> np.ndarray:
        """Players of each pair, (pairs, 2)."""
        return self.among[np.stack(np.triu_indices(len(self.among), 1), 1)]

    @cached_property
    def row(self) -> dict[tuple[int, ...], int]:
        """Row of ``terms`` of every set of players: (), (i,) or (i, j) with i < j."""
        keys = [(), *((i,) for i in range(self.n)), *map(tuple, self.pairs.tolist())]
        return {key: row for row, key in enumerate(keys)}

    @cached_property
    def expected(self) -> np.ndarray:
        """Expected discrete derivative of every set under p, rows as in ``terms``: index vectors.

        The mean for (), A_i + p sum_j A_ij for (i,), and A_ij for (i, j).
        """
        expected, k = self.terms.copy(), len(self.among)
        start = 1 + self.n
        for a in range(k - 1):  # the pairs of player among[a] with later ones lie together
            block = self.p * self.terms[start : start + k - 1 - a]  # (k - 1 - a, r)
            expected[1 + self.among[a]] += block.sum(0)
            expected[1 + self.among[a + 1 :]] += block
            start += k - 1 - a
        singles = (self.terms[1 : 1 + self.n] + expected[1 : 1 + self.n]) / 2  # a pair counts once
        expected[0] += self.p * singles.sum(0)
        return expected

    def shifted(self, group: int) -> VectorPolynomial:
        """The polynomial with what one group of masks adds to it."""
        terms, deviation = self.terms.copy(), self.deviations[group]
        terms[:, : deviation.shape[1]] += deviation
        return replace(self, terms=terms, deviations=None)


@dataclass(frozen=True, eq=False, repr=False)
class ProductExplanation(Explanation):
    """An `Explanation` that also has every interaction of up to two players of each side.

    ``e0, e1, e2`` with their errors, and the views that are made of them, are those of the order-2
    explanation of the same sweeps. `value` is the product polynomial's, which is more faithful;
    `interaction`, `coefficient`, `given_pair` and `strongest_interactions` are of its terms. Their
    error bars, by `stderr_of`, count the masks drawn but not the bias of a ridge penalty, which
    shrinks pairs within a side where masks are few.

    Attributes
    ----------
    image_fit, text_fit : VectorPolynomial or None
        The sides' fits. None only on what `stderr_of` makes where no error bars were kept.
    """

    image_fit: VectorPolynomial | None = None
    text_fit: VectorPolynomial | None = None

    def _fits(self) -> tuple[VectorPolynomial, VectorPolynomial]:
        if self.image_fit is None or self.text_fit is None:
            raise ValueError(
                "the product's terms carry no error bars here: there were too many of them; use "
                'basis="top" or fewer players'
            )
        return self.image_fit, self.text_fit

    @property
    def _scale(self) -> float:
        return self.info["fit"]["scale"]

    @property
    def _bias(self) -> float:
        return self.info["fit"]["bias"]

    def value(self, masks: torch.Tensor | np.ndarray) -> np.ndarray:
        """Evaluate the product polynomial on masks (m, n), True = kept: values (m,)."""
        z = self.checked(masks)
        image, text = self._fits()
        products = image(z[:, : self.n_image]) * text(z[:, self.n_image :])  # (m, r)
        return self._scale * products.sum(1) + self._bias

    def interaction(self, players: Player | Iterable[Player]) -> float:
        """Interaction index of a set of players: the product's expected discrete derivative.

        How much the players do together beyond what smaller sets of them do, in expectation over
        the other players. Up to second order it estimates what ``e2`` and `attributions` estimate,
        and is the same number where both sides are enumerated. Of drawn masks it is the more
        accurate estimate for one player of each side: pairs within the sides do not act as noise
        (at p = .5 antithetic masks cancel them in both).

        Parameters
        ----------
        players : int, str or several of them
            At most two of a side. None at all: the expected value.

        Examples
        --------
        >>> class Toy:
        ...     def __init__(self, names): self.n, self.names = len(names), names
        ...     def embed(self, z): return z.double().prod(1, keepdim=True)
        >>> from fixlip import solve, sweep
        >>> e = solve(sweep(Toy(["left", "right"])), sweep(Toy(["blue", "star"])), order="product")
        >>> [round(e.interaction(s), 9) for s in (["left", "right", "star"], [0, 1, 2, 3])]
        [0.5, 1.0]
        """
        return self._product(players, [fit.expected for fit in self._fits()])

    def coefficient(self, players: Player | Iterable[Player]) -> float:
        """Coefficient of the product of the players' mask entries; players as in `interaction`."""
        return self._product(players, [fit.terms for fit in self._fits()])

    def given_pair(self, first: Player, second: Player) -> np.ndarray:
        """Third-order interactions of two players of one side with every player of the other.

        Two words give a map over the image players (n_I,), two patches scores of the words (n_T,).
        """
        image, text = self._sides([first, second])
        if image and text:
            raise ValueError(f"{first!r} and {second!r} are of different sides: give two of one")
        fit, other = self._fits() if image else self._fits()[::-1]
        row = fit.row.get(image or text)
        singles = other.expected[1 : 1 + other.n]  # (n_other, r)
        return self._scale * (singles @ fit.terms[row]) if row is not None else np.zeros(other.n)

    def strongest_interactions(
        self, count: int = 10, *, order: int = 3
    ) -> list[tuple[tuple[int, ...], float]]:
        """The interactions of third or fourth order with the largest absolute value.

        Returns a list of (tuple of int, float): players, image first, and the value of
        `interaction`; strongest first.

        Parameters
        ----------
        count : int
        order : {3, 4}
            3: a pair of one side with a player of the other. 4: a pair of each side.
        """
        integer("count", count)
        if order not in (3, 4):
            raise ValueError(f"order must be 3 or 4 (of order 2: `strongest`), got {order!r}")
        found: list[tuple[tuple[int, ...], float]] = []
        for sizes in [(2, 1), (1, 2)] if order == 3 else [(2, 2)]:
            (left, a), (right, b) = (
                (fit.pairs, fit.expected[1 + fit.n :])
                if size == 2
                else (np.arange(fit.n)[:, None], fit.expected[1 : 1 + fit.n])
                for fit, size in zip(self._fits(), sizes, strict=True)
            )  # players (rows, size), index vectors (rows, r)
            step = max(1, BLOCK // max(1, len(b)))
            for start in range(0, len(a) if len(b) else 0, step):
                block = self._scale * (a[start : start + step] @ b.T).ravel()
                best = min(count, len(block))
                for flat in np.argpartition(-np.abs(block), best - 1)[:best]:
                    i, j = divmod(int(flat), len(b))
                    players = (*left[start + i].tolist(), *(right[j] + self.n_image).tolist())
                    found.append((players, float(block[flat])))
                found = sorted(found, key=lambda one: (-abs(one[1]), one[0]))[:count]
        return found

    def _product(self, players: Player | Iterable[Player], vectors: list[np.ndarray]) -> float:
        """Inner product of the sides' rows for a set of players, on the game's scale."""
        own = self._sides(players)
        rows = [fit.row.get(part) for fit, part in zip(self._fits(), own, strict=True)]
        if None in rows:  # a pair that basis="top" leaves out
            return 0.0
        value = self._scale * float(vectors[0][rows[0]] @ vectors[1][rows[1]])
        return value if any(own) else value + self._bias

    def _sides(self, players: Player | Iterable[Player]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Players of the image and of the text, each counted within its side and in order."""
        index = sorted(self.indices(players))
        image = tuple(i for i in index if i < self.n_image)
        text = tuple(i - self.n_image for i in index if i >= self.n_image)
        if max(len(image), len(text)) > 2:
            raise ValueError(
                f"{players!r}: {len(image)} players of the image and {len(text)} of the text; the "
                "product has interactions of at most two players of a side"
            )
        return image, text

    def shifted(self, row: int) -> Explanation:
        """With one row of ``deviations`` added; groups of masks shift the product's terms too."""
        there, fits = super().shifted(row), {"image_fit": self.image_fit, "text_fit": self.text_fit}
        if any(fit.deviations is None for fit in self._fits()):
            return replace(there, image_fit=None, text_fit=None)
        for name, fit in fits.items():
            if row < len(fit.deviations):
                return replace(there, **{name: fit.shifted(row)})
            row -= len(fit.deviations)
        return there

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = super().arrays()
        for side, fit in zip(("image", "text"), self._fits(), strict=True):
            arrays |= {f"{side}_among": fit.among, f"{side}_terms": fit.terms}
            if fit.deviations is not None:
                arrays[f"{side}_deviations"] = fit.deviations
        return arrays

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]
    ) -> ProductExplanation:
        plain = Explanation.from_arrays(arrays, about)
        counts = plain.n_image, plain.n_text
        fits = []
        for side, n, p in zip(("image", "text"), counts, plain.p, strict=True):
            parts = (arrays.get(f"{side}_{part}") for part in ("among", "terms", "deviations"))
            fits.append(VectorPolynomial(n, p, *parts))
        return _with_fits(plain, *fits)


def with_products(explanation: Explanation, image: Factor, text: Factor) -> ProductExplanation:
    """Add the third and fourth order to the order-2 explanation of two factors, with its errors.

    Only inner products of the two sides matter, so both sides' coefficients are written in an
    orthonormal basis of the space that the side with fewer terms spans. With error bars the basis
    is completed to all D dimensions for that side, because its errors can leave that space.
    """
    factors = image, text
    width = image.first.shape[1]
    counts = [count_terms(f.n) for f in factors]
    small = int(counts[1] <= counts[0])
    rows, pairs_among = _terms(factors[small], torch.eye(width).to(image.first))  # rows (q, D)
    spanned = min(width, len(rows))
    groups = [0, 0]
    if explanation.deviations is not None:
        groups = [len(f.errors.members.T) for f in factors]
    used = [spanned, spanned]  # columns in which each side's errors are kept
    used[small] = width if groups[small] else spanned
    entries = sum(g * q * c for g, q, c in zip(groups, counts, used, strict=True))
    bars = explanation.deviations is not None and entries <= MAX_DEVIATIONS
    if entries > MAX_DEVIATIONS:
        warn(
            f"error bars of the third- and fourth-order terms would take {entries * 4 / 2**30:.1f} "
            'GB, so only those of order 2 are kept: use basis="top" or fewer players for all of '
            "them, or errors=False for none"
        )
        used[small] = spanned
    mode = "complete" if used[small] > spanned else "reduced"
    basis = torch.linalg.qr(rows.T, mode=mode).Q  # (D, r): the first columns span the terms
    fits = []
    for side, factor in enumerate(factors):
        terms, among = (rows @ basis, pairs_among) if side == small else _terms(factor, basis)
        deviations = _deviations(factor, basis[:, : used[side]], among) if bars else None
        arrays = among.cpu().numpy(), terms.cpu().numpy(), deviations
        fits.append(VectorPolynomial(factor.n, factor.p, *arrays))
    return _with_fits(explanation, *fits)


def _with_fits(
    explanation: Explanation, image: VectorPolynomial, text: VectorPolynomial
) -> ProductExplanation:
    own = {f.name: getattr(explanation, f.name) for f in fields(Explanation)}
    return ProductExplanation(**own, image_fit=image, text_fit=text)


def _terms(factor: Factor, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A side's terms along vectors (D, k), below each other, and the players that have pairs."""
    blocks, among = [], None
    for part in vectors.split(max(1, BLOCK // factor.n**2), dim=1):
        const, first, pairs = factor.own(part)
        among = pairs.any(2).any(1).nonzero()[:, 0] if among is None else among
        blocks.append(_rows(const, first, pairs, among))
    return torch.cat(blocks, 1), among


def _rows(
    const: torch.Tensor, first: torch.Tensor, pairs: torch.Tensor, among: torch.Tensor
) -> torch.Tensor:
    """Constant (k,), first-order terms (n, k) and pairs (n, n, k) as rows (1 + n + pairs, k)."""
    i, j = torch.triu_indices(len(among), len(among), 1)
    return torch.cat([const[None], first, pairs[among[i], among[j]]])


def _deviations(factor: Factor, basis: torch.Tensor, among: torch.Tensor) -> np.ndarray:
    """What each group of masks adds to a side's terms along a basis (D, r): (groups, q, r)."""
    rows = (_rows(*terms, among) for terms in factor.errors.own_rows(basis))
    found = [row.float().cpu().numpy() for row in rows]
    q = count_terms(factor.n, len(among))
    return np.stack(found) if found else np.zeros((0, q, basis.shape[1]), np.float32)
