"""From one sweep to one factor.

A least-squares fit is linear in its targets, so a side is fitted once, whatever it is paired with:
its players' vectors are the slopes of the embedding itself, and its own terms those of the
embedding's inner products with a vector that comes from the other side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from fixlip.checks import instance, number, one_of
from fixlip.sampler import Sweep
from fixlip.solver.errors import SideErrors, known
from fixlip.solver.factor import Factor
from fixlip.solver.polynomial import Design, Problem


def fit(
    swept: Sweep,
    *,
    order: int = 2,
    ridge: float | str = "auto",
    among: Sequence[int] | None = None,
    errors: bool = True,
) -> Factor:
    """Fit one side: the vectors of its players, and its own terms.

    Parameters
    ----------
    swept : Sweep
        From `fixlip.sweep`: n players under m masks, embeddings of width D.
    order : {1, 2}
        2: the side's own pairs are fitted as well. 1: it has none.
    ridge : "auto" or float
        Penalty on the squared coefficients of the side's own pairs in the orthonormal basis. "auto"
        chooses it by restricted maximum likelihood of the embedding (none for an enumerated side),
        and whether pairs of strong players are penalised less; below 4 masks per first-order term
        it penalises these terms too. 0 is plain least squares (minimum norm, and a warning, where
        the masks leave terms open). Error bars count the bias that a penalty of any size is
        expected to have, as the masks show how large terms are.
    among : sequence of int, optional
        Players that have pairs, with each other and with the other side; by default all.
    errors : bool
        Also keep what the standard errors of a pair need.

    References
    ----------
    Weighted Banzhaf values: Marichal and Mathonet, 2011. FIxLIP: Baniecki et al., NeurIPS 2025.
    That a side can be fitted without the other one is proved in notebooks/01_theory.ipynb.

    Examples
    --------
    >>> import torch, fixlip
    >>> class Toy:
    ...     n, names = 3, ("a", "b", "c")
    ...     def embed(self, masks): return masks.double()
    >>> (fit(fixlip.sweep(Toy())).first > 0.5).int().tolist()  # each adds its own unit vector
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    check_fit(order, ridge)
    design = design_of(instance(swept, Sweep, "fixlip.sweep(side) makes one"))
    return fit_design(swept, design, order=order, ridge=ridge, among=among, errors=errors)


def design_of(swept: Sweep) -> Design:
    """The masks and embeddings of a sweep, to be fitted once or more."""
    return Design(swept.sample, swept.embeddings, swept.info.get("kind", "side"))


def fit_design(
    swept: Sweep,
    design: Design,
    *,
    order: int,
    ridge: float | str,
    among: Sequence[int] | None,
    errors: bool,
) -> Factor:
    """What `fit` does, of a sweep whose `design_of` is there already."""
    one_of("errors", errors, (True, False))
    sample = swept.sample
    everyone = torch.arange(design.n)
    some = everyone if among is None else _players(among, design.n)
    own = None
    if order == 2 or among is not None:  # first, as it has more terms to warn of
        own = Problem(design, everyone, some if order == 2 else some[:0], ridge, design.sketch)
    slopes = Problem(design, some, some[:0], ridge, design.sketch)
    if slopes.penalises_first and (lost := design.undetermined_players):
        warn_of_players(design, lost, design.n)
    own = slopes if own is None else own
    origin, first, _ = slopes.fit(design.E)
    chosen = {} if among is None else {"among": some.tolist()}
    return Factor(
        first=first,
        names=swept.names,
        kind=swept.info.get("kind", "text" if swept.picture is None else "image"),
        method="fixlip",
        options={"order": order, "ridge": ridge} | chosen,
        info=swept.info | {"masks": sample.m, "sampling": sample.sampling, "seed": sample.seed},
        picture=swept.picture,
        p=sample.p,
        ends=swept.ends,
        mean=design.mean,
        origin=origin,
        own=own.along,
        errors=SideErrors(design, slopes, own) if errors and known(design) else None,
    )


def check_fit(order: int, ridge: float | str) -> None:
    """Raise unless the order and the penalty of a fit are possible."""
    one_of("order", order, (1, 2))
    if not (isinstance(ridge, str) and ridge == "auto"):
        number('ridge must be "auto", or', ridge, at_least=0)


def warn_of_players(design: Design, lost: int, n: int) -> None:
    """Warn that masks leave first-order terms to a penalty."""
    design.warn(
        "terms",
        f"{design.m} masks leave {lost} of {n} first-order terms undetermined (players that are "
        "always or never kept, or always together): they are guesses. Use more masks, or a p "
        "nearer to 0.5.",
    )


def _players(among: Sequence[int], n: int) -> torch.Tensor:
    """Different players of n, by their numbers from 0."""
    given = among.tolist() if hasattr(among, "tolist") else among
    given = list(given) if isinstance(given, Iterable) else [given]
    whole = (x for x in given if isinstance(x, int | np.integer) and not isinstance(x, bool))
    players = [int(x) for x in whole if 0 <= x < n]
    if len(set(players)) < len(given):
        raise ValueError(f"among must be different players, 0 to {n - 1}, got {given}")
    return torch.tensor(players, dtype=torch.long)
