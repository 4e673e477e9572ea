"""The product explanation: interactions of up to two players of each side, from the same sweeps.

Each side's embedding is fitted once, by an order-2 polynomial of its own masks with vectors as
coefficients: E^(z) = A_0 + sum_i A_i z_i + sum_ij A_ij z_i z_j, and F^(y) alike with B. The product
explanation is scale * <E^(z), F^(y)> + bias; the coefficient of z_i z_j y_t is scale * <A_ij, B_t>.

It is the least-squares fit of the game by products of such polynomials, under the weights w (x) v:
the projection on a tensor product of two spaces is P_I (x) P_T, and with one embedding dimension
after the other (P_I (x) P_T) sum_d E_d F_d = sum_d (P_I E_d)(P_T F_d) = <E^, F^>.
Its own order-2 fit is the explanation of `solve(order=2)`: that fit's terms lie in the tensor
product, and of nested projections the smaller one decides. Both hold for ridge=0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from fixlip.explanation import Explanation, Player
from fixlip.solver.vectorfit import BLOCK, VectorPolynomial


@dataclass(frozen=True, eq=False, repr=False)
class ProductExplanation(Explanation):
    """An `Explanation` that also has every interaction of up to two players of each side.

    ``e0, e1, e2`` with their errors, and the views that are made of them, are those of the order-2
    explanation of the same sweeps. `value` is the product polynomial's, which is more faithful;
    `interaction`, `coefficient`, `given_pair` and `strongest_interactions` are of its terms. Give
    these to `stderr_of` for error bars: how much they vary with the masks drawn. Those bars do not
    know of the bias of a ridge penalty, which shrinks pairs within a side where masks are few.

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

    def value(self, masks: torch.Tensor | np.ndarray) -> np.ndarray:
        """Evaluate the product polynomial on masks (m, n), True = kept: values (m,)."""
        z = self._as_numbers(masks)
        image, text = self._fits()
        products = image(z[:, : self.n_image]) * text(z[:, self.n_image :])  # (m, r)
        return self._on_scale(products.sum(1)) + self.info["fit"]["bias"]

    def interaction(self, players: Player | Iterable[Player]) -> float:
        """Interaction index of a set of players: the product's expected discrete derivative.

        How much the players do together beyond what smaller sets of them do, in expectation over
        the other players, kept with probability p. An inner product of two index vectors.

        Up to second order this estimates what ``e2`` and `attributions` estimate, and is the same
        number where both sides are enumerated. Of drawn masks, ``e2`` is the least-squares fit of
        order 2, and this the more accurate estimate for a player of each side: the pairs within
        the sides no longer act as noise (at p = .5 antithetic masks cancel them for both). Under
        ridge="auto" the two fits also have penalties of their own.

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
        return self._on_scale(singles @ fit.terms[row]) if row is not None else np.zeros(other.n)

    def strongest_interactions(
        self, count: int = 10, *, order: int = 3
    ) -> list[tuple[tuple[int, ...], float]]:
        """The interactions of third or fourth order with the largest absolute value.

        Parameters
        ----------
        count : int
        order : {3, 4}
            3: a pair of one side with a player of the other. 4: a pair of each side.

        Returns
        -------
        list of (tuple of int, float)
            Players, image first, and the value of `interaction`; strongest first.
        """
        if order not in (3, 4) or count < 1:
            raise ValueError(
                "strongest_interactions finds 1 or more of order 3 or 4 (order 2: `strongest`); "
                f"got count={count!r}, order={order!r}"
            )
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
                block = self._on_scale(a[start : start + step] @ b.T).ravel()
                best = min(count, len(block))
                for flat in np.argpartition(-np.abs(block), best - 1)[:best]:
                    i, j = divmod(int(flat), len(b))
                    players = (*left[start + i].tolist(), *(right[j] + self.n_image).tolist())
                    found.append((players, float(block[flat])))
                found = sorted(found, key=lambda one: (-abs(one[1]), one[0]))[:count]
        return found

    def _on_scale(self, products: np.ndarray | float) -> np.ndarray:
        return self.info["fit"]["scale"] * products

    def _product(self, players: Player | Iterable[Player], vectors: list[np.ndarray]) -> float:
        """Inner product of the sides' rows for a set of players, on the game's scale."""
        own = self._sides(players)
        rows = [fit.row.get(part) for fit, part in zip(self._fits(), own, strict=True)]
        if None in rows:  # a pair that basis="top" leaves out
            return 0.0
        value = float(self._on_scale(vectors[0][rows[0]] @ vectors[1][rows[1]]))
        return value if any(own) else value + self.info["fit"]["bias"]

    def _sides(self, players: Player | Iterable[Player]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Players of the image and of the text, each counted within its side and in order."""
        one = isinstance(players, (str, int, np.integer))
        index = sorted(self.index(player) for player in ([players] if one else players))
        image = tuple(i for i in index if i < self.n_image)
        text = tuple(i - self.n_image for i in index if i >= self.n_image)
        if len(set(index)) < len(index):
            raise ValueError(f"{players!r} names a player twice: name different players")
        if max(len(image), len(text)) > 2:
            raise ValueError(
                f"{players!r}: {len(image)} players of the image and {len(text)} of the text; the "
                "product has interactions of at most two players of a side"
            )
        return image, text

    def _moved(self) -> Iterator[Explanation]:
        rows, fits = super()._moved(), {"image_fit": self.image_fit, "text_fit": self.text_fit}
        if any(fit.deviations is None for fit in self._fits()):
            yield from (replace(there, image_fit=None, text_fit=None) for there in rows)
            return
        for name, fit in fits.items():
            for group in range(len(fit.deviations)):
                yield replace(next(rows), **{name: fit.moved(group)})
        yield from rows  # what the penalties of the order-2 fits took: not of the product's

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = super()._arrays()
        for side, fit in zip(("image", "text"), self._fits(), strict=True):
            arrays |= {f"{side}_among": fit.among, f"{side}_terms": fit.terms}
            if fit.deviations is not None:
                arrays[f"{side}_deviations"] = fit.deviations
        return arrays


def with_arrays(explanation: Explanation, arrays: dict[str, np.ndarray]) -> ProductExplanation:
    """The product explanation whose order-2 part and whose saved arrays these are."""
    fits = (
        VectorPolynomial(
            n,
            p,
            arrays[f"{side}_among"],
            arrays[f"{side}_terms"],
            arrays.get(f"{side}_deviations"),
        )
        for side, n, p in zip(
            ("image", "text"), (explanation.n_image, explanation.n_text), explanation.p, strict=True
        )
    )
    return extend(explanation, *fits)


def extend(
    explanation: Explanation, image: VectorPolynomial, text: VectorPolynomial
) -> ProductExplanation:
    """Add the sides' fits to the order-2 explanation of the same sweeps."""
    own = {f.name: getattr(explanation, f.name) for f in fields(Explanation)}
    return ProductExplanation(**own, image_fit=image, text_fit=text)
