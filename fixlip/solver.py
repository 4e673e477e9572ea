"""From two sweeps to an explanation: least squares by the splitting theorem, and its oracle.

Letters: n_I, n_T players; m_I, m_T masks; Z (m, n) masks as numbers, w (m,) weights of sum 1;
E (m, D) embeddings. The game's value for image mask a and text mask b is <E_a, F_b>, so the fit
over all m_I * m_T values with weights w (x) v never needs those values: it is the sum of

- an order-2 fit of the row means E Fbar on the image masks,
- an order-2 fit of the column means F Ebar on the text masks, and
- the cross block C = J_I J_T', the inner products of both sides' regression slopes,

because functions of Z alone, functions of Y alone (both centred) and products of centred masks are
orthogonal to each other under w (x) v. `solve` does that, `solve_dense` forms everything and is
the slow reference that `solve` is tested against.

Every fit is done in x = (z - p) / sqrt(p (1 - p)), whose monomials are orthonormal under the
product measure; that keeps the systems well conditioned and gives ridge a meaning.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch

from fixlip.explanation import Explanation
from fixlip.game import pair_scale
from fixlip.sampler import Sweep

BLOCK = 2**24  # most float64 entries of one block of design columns: 128 MB
FEW = 4  # below FEW masks per free coefficient, first-order terms are shrunk as well


def solve(
    image_sweep: Sweep,
    text_sweep: Sweep,
    *,
    order: int = 2,
    ridge: float | str = "auto",
    basis: str = "full",
    k: int = 72,
    scale: float | None = None,
    bias: float | None = None,
) -> Explanation:
    """Explain a pair from its two sweeps: the weighted least-squares fit over all mask pairs.

    Any two sweeps of one model pair up: image and text, image and image, text and text.

    Parameters
    ----------
    image_sweep, text_sweep : Sweep
        n_I players under m_I masks and n_T players under m_T masks, of the same model.
    order : {1, 2}
        1: a constant and a term per player. 2: also a term per pair of players.
    ridge : "auto" or float
        Penalty on the squared pair coefficients in the orthonormal basis. "auto" chooses it by
        restricted maximum likelihood, side by side, and takes none for enumerated sides; 0 is
        plain least squares (minimum norm, with a warning, where the masks leave terms open).
    basis : {"full", "cross", "top"}
        Which pairs exist: all; image-text pairs only; or all among the k players with the largest
        first-order terms (at least 5 of the text), the filter of the FIxLIP experiments.
    k : int
        Players kept by "top".
    scale, bias : float, optional
        The game is scale * <E, F> + bias. By default the model's own logit scale and bias (1 and 0
        for sides that name no model); scale=1, bias=0 explain the cosine.

    Returns
    -------
    Explanation
        Image players first.

    Raises
    ------
    ValueError
        For sweeps of different models or widths, or unknown options.

    References
    ----------
    The estimand and the cross-modal sampling: Baniecki et al., NeurIPS 2025. The splitting is
    proved in notebooks/01_theory.ipynb.

    Examples
    --------
    >>> import torch, fixlip
    >>> class Toy:
    ...     def __init__(self, n): self.n, self.names = n, [str(i) for i in range(n)]
    ...     def embed(self, masks): return masks.double()
    >>> e = fixlip.solve(fixlip.sweep(Toy(3)), fixlip.sweep(Toy(3)))
    >>> e.cross.round(6).tolist()  # <z, y> = sum of z_i y_i
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    _check_options(order, ridge, basis, k)
    scale, bias = _game_scale(image_sweep, text_sweep, scale, bias)
    image, text = _System(image_sweep), _System(text_sweep)
    centre = image.mean @ text.mean  # <Ebar, Fbar>
    rows = (image.E @ text.mean)[:, None]  # (m_I, 1): mean over the text masks
    columns = (text.E @ image.mean)[:, None]  # (m_T, 1): mean over the image masks

    image_among, text_among = torch.arange(image.n), torch.arange(text.n)
    if order == 1 or basis == "cross":
        image_pairs = text_pairs = torch.arange(0)
    elif basis == "top":
        first = solve(image_sweep, text_sweep, order=1, ridge=ridge, scale=1.0, bias=0.0)
        image_among, text_among = top_players(first.e1, image.n, k)
        image_pairs, text_pairs = image_among, text_among
    else:
        image_pairs, text_pairs = image_among, text_among

    g0, g1, g2 = image.polynomial(rows, image_pairs, ridge)
    h0, h1, h2 = text.polynomial(columns, text_pairs, ridge)
    C = torch.zeros(image.n, text.n, dtype=torch.float64, device=image.Z.device)
    if order == 2:
        J_I = image.slopes(image_among, ridge)  # (k_I, D)
        J_T = text.slopes(text_among, ridge)  # (k_T, D)
        C[image_among[:, None], text_among] = J_I @ J_T.T
    ybar, zbar = text.w @ text.Z, image.w @ image.Z

    e2 = torch.zeros(image.n + text.n, image.n + text.n, dtype=torch.float64, device=C.device)
    e2[: image.n, : image.n], e2[image.n :, image.n :] = g2, h2
    e2[: image.n, image.n :], e2[image.n :, : image.n] = C, C.T
    e1 = torch.cat([g1 - C @ ybar, h1 - zbar @ C])
    e0 = g0 + h0 - centre + zbar @ C @ ybar
    return pack(
        image_sweep,
        text_sweep,
        e0,
        e1,
        e2,
        scale=scale,
        bias=bias,
        order=order,
        ridge=ridge,
        basis=basis,
    )


def top_players(first: np.ndarray, n_image: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k players with the largest |first-order term|, by side: the filter of the paper.

    Text keeps min(n_T, max(5, ceil(k n_T / n))) players and the image the rest of the k.
    """
    n, n_text = len(first), len(first) - n_image
    k_text = min(n_text, max(5, math.ceil(n_text * k / n)), k)
    k_image = min(n_image, k - k_text)
    strength = np.abs(first)
    image = np.sort(np.argsort(-strength[:n_image], kind="stable")[:k_image])
    text = np.sort(np.argsort(-strength[n_image:], kind="stable")[:k_text])
    return torch.from_numpy(image), torch.from_numpy(text)


def pack(
    image_sweep: Sweep,
    text_sweep: Sweep,
    e0: torch.Tensor,
    e1: torch.Tensor,
    e2: torch.Tensor,
    *,
    scale: float,
    bias: float,
    order: int,
    ridge: float | str,
    basis: str,
) -> Explanation:
    """Put coefficients of <E, F> on the game's scale, with everything that determined them."""
    ends = scale * (image_sweep.ends.double() * text_sweep.ends.double()).sum(1) + bias
    sides = {
        name: {
            **s.info,
            "masks": s.sample.m,
            "sampling": s.sample.method,
            "seed": s.sample.seed,
        }
        for name, s in (("image", image_sweep), ("text", text_sweep))
    }
    return Explanation(
        e0=float(scale * e0 + bias),
        e1=(scale * e1).cpu().numpy(),
        e2=(scale * e2).cpu().numpy(),
        players=image_sweep.names + text_sweep.names,
        n_image=image_sweep.n,
        p=(image_sweep.sample.p, text_sweep.sample.p),
        empty_value=float(ends[0]),
        grand_value=float(ends[1]),
        info={
            **sides,
            "fit": {"order": order, "ridge": ridge, "basis": basis, "scale": scale, "bias": bias},
        },
        picture=image_sweep.picture,
    )


def _game_scale(
    image_sweep: Sweep, text_sweep: Sweep, scale: float | None, bias: float | None
) -> tuple[float, float]:
    widths = [s.embeddings.shape[1] for s in (image_sweep, text_sweep)]
    result = pair_scale(image_sweep.info, text_sweep.info, scale=scale, bias=bias)
    if widths[0] != widths[1]:
        raise ValueError(
            f"the sides have embeddings of width {widths[0]} and {widths[1]}: "
            "sweep both sides with the same model"
        )
    return result


def _check_options(order: int, ridge: float | str, basis: str, k: int) -> None:
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, got {order!r}")
    if basis not in ("full", "cross", "top"):
        raise ValueError(f'basis must be "full", "cross" or "top", got {basis!r}')
    if not (ridge == "auto" or (isinstance(ridge, (int, float)) and 0 <= ridge < math.inf)):
        raise ValueError(f'ridge must be "auto" or a number of 0 or more, got {ridge!r}')
    if k < 2:
        raise ValueError(f"the filter must keep 2 players or more, got k={k!r}")


class _System:
    """One side's least-squares problems: they share masks, weights and basis."""

    def __init__(self, swept: Sweep) -> None:
        device = swept.embeddings.device
        device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        self.E = swept.embeddings.to(device, torch.float64)  # (m, D)
        self.Z = swept.masks.to(device, torch.float64)  # (m, n)
        self.w = swept.weights.to(device)  # (m,)
        self.m, self.n = self.Z.shape
        self.p = swept.sample.p
        self.sd = math.sqrt(self.p * (1 - self.p))
        self.X = (self.Z - self.p) / self.sd
        self.mean = self.w @ self.E  # (D,)
        self.exact = swept.sample.method == "enumerated"
        self.name = swept.info.get("kind", "side")
        # Complementary twins: x' = -x, so the fit falls apart into an even part (constant, pairs)
        # of the twins' means and an odd part (first order) of their half differences, each with
        # half the rows. Exact, and the eigenproblem is eight times cheaper.
        self.folded = (
            swept.sample.method == "antithetic"
            and self.m % 2 == 0
            and bool((swept.masks[0::2] == ~swept.masks[1::2]).all())
        )

    def polynomial(
        self, Y: torch.Tensor, among: torch.Tensor, ridge: float | str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fit one target (m, 1) by monomials in z: constant, first (n,), pairs (n, n)."""
        c, a, b = self._fit(Y, torch.arange(self.n), among, ridge)
        B = torch.zeros(self.n, self.n, dtype=torch.float64, device=b.device)
        i, j = torch.triu_indices(len(among), len(among), 1)
        B[among[i], among[j]] = b[:, 0] / self.sd**2
        B = B + B.T
        a = a[:, 0] / self.sd
        const = c[0] - self.p * a.sum() + self.p**2 * B.sum() / 2
        return const, a - self.p * B.sum(1), B

    def slopes(self, among: torch.Tensor, ridge: float | str) -> torch.Tensor:
        """First-order slopes of the embedding itself on some players: J = Cov(Z)^+ Z'WE, (k, D)."""
        return self._fit(self.E, among, torch.arange(0), ridge)[1] / self.sd

    def _fit(
        self, Y: torch.Tensor, singles: torch.Tensor, among: torch.Tensor, ridge: float | str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fit targets (m, k) by x_i for some players and x_i x_j among some, and a constant.

        Returns the constant (k,), the first-order terms (singles, k) and the pairs (q, k).
        """
        ridge = 0.0 if ridge == "auto" and self.exact else ridge
        X, n = self.X[:, singles], len(singles)
        unknowns = 1 + n + len(among) * (len(among) - 1) // 2
        if ridge == 0 and self.m < unknowns:
            warnings.warn(
                f"{self.name}: {self.m} masks do not determine {unknowns} terms; plain least "
                "squares gives the smallest of many solutions. Use more masks or ridge='auto'.",
                stacklevel=4,
            )
        one = torch.ones(self.m, 1, dtype=torch.float64, device=self.X.device)
        none = self.X[:, :0]
        pairs = self.X[:, among]
        few = ridge == "auto" and self.m < FEW * (n + 1)  # then first-order terms shrink too
        if self.folded:
            even, odd = (Y[0::2] + Y[1::2]) / 2, (Y[0::2] - Y[1::2]) / 2  # (m/2, k)
            half, w, one, none = X[0::2], 2 * self.w[0::2], one[0::2], none[0::2]
            a = (
                _penalised(none, _Columns(half, none), w, odd, ridge).shrunk
                if few
                else _penalised(half, _Columns(none, none), w, odd, ridge).free
            )
            fit = _penalised(one, _Columns(none, pairs[0::2]), w, even, ridge)
            return fit.free[0], a, fit.shrunk
        if few:
            # n first-order terms are expected to matter at least as much as the n**2 / 2 pairs
            stretch = math.sqrt(n)
            fit = _penalised(one, _Columns(stretch * X, pairs), self.w, Y, ridge)
            return fit.free[0], stretch * fit.shrunk[:n], fit.shrunk[n:]
        fit = _penalised(torch.cat([one, X], 1), _Columns(none, pairs), self.w, Y, ridge)
        return fit.free[0], fit.free[1:], fit.shrunk


@dataclass(frozen=True)
class _Columns:
    """Design columns of shrunk terms: x_i for the players of ``first``, x_i x_j among ``pairs``."""

    first: torch.Tensor  # (m, n1)
    pairs: torch.Tensor  # (m, n2)

    @property
    def count(self) -> int:
        n = self.pairs.shape[1]
        return self.first.shape[1] + n * (n - 1) // 2

    def kernel(self) -> torch.Tensor:
        """Inner products of all rows, (m, m), without forming the columns."""
        gram = self.pairs @ self.pairs.T
        squares = self.pairs.square()
        return self.first @ self.first.T + (gram.square() - squares @ squares.T) / 2

    def blocks(self):
        """Rows of the design, a bounded block at a time: slice, (b, count)."""
        i, j = torch.triu_indices(self.pairs.shape[1], self.pairs.shape[1], 1)
        m = self.first.shape[0]
        step = max(1, BLOCK // max(1, self.count))
        for start in range(0, m, step):
            rows = slice(start, min(m, start + step))
            x = self.pairs[rows]
            yield rows, torch.cat([self.first[rows], x[:, i] * x[:, j]], 1)


@dataclass(frozen=True)
class _Fit:
    free: torch.Tensor  # (f, k)
    shrunk: torch.Tensor  # (q, k)
    ridge: float


def _penalised(
    free: torch.Tensor, columns: _Columns, w: torch.Tensor, Y: torch.Tensor, ridge: float | str
) -> _Fit:
    """Minimise sum_r w_r |Y_r - free_r a - columns_r b|^2 + ridge |b|^2 over a and b.

    The free terms are projected out; what remains is solved by the eigenvectors of the smaller of
    the columns' two Gram matrices, (q, q) or (m, m), which serve every penalty at once.
    """
    root = w.sqrt()[:, None]  # (m, 1)
    U, s, Vt = torch.linalg.svd(root * free, full_matrices=False)
    keep = s > s.max() * 1e-11 if s.numel() else s > 0
    Q = U[:, keep]  # (m, f): an orthonormal basis of the free terms
    y = root * Y
    y = y - Q @ (Q.T @ y)  # (m, k)
    m, q = len(w), columns.count
    b = torch.zeros(q, Y.shape[1], dtype=Y.dtype, device=Y.device)
    chosen = 0.0
    if q:
        if q <= m:
            gram, mixed, target = 0.0, 0.0, 0.0
            for rows, T in columns.blocks():
                T = T * root[rows]
                gram, mixed = gram + T.T @ T, mixed + T.T @ Q[rows]
                target = target + T.T @ y[rows]
            values, V = torch.linalg.eigh(gram - mixed @ mixed.T)  # (q,), (q, q)
        else:
            K = root * columns.kernel() * root.T
            K = K - Q @ (Q.T @ K)
            K = K - (K @ Q) @ Q.T
            values, V = torch.linalg.eigh(K)  # (m,), (m, m)
            target = K @ y
        inside = values > values[-1].clamp(min=0) * 1e-11
        values, V = values[inside], V[:, inside]
        if ridge == 0 and q <= m and int(inside.sum()) < q:
            warnings.warn(
                f"{m} masks leave {q - int(inside.sum())} of {q} pair terms undetermined; plain "
                "least squares gives the smallest of many solutions. Use more masks or "
                "ridge='auto'.",
                stacklevel=5,
            )
        score = V.T @ target  # primal: V'T'y; dual: V'Ky = values * V'y
        fitted = score.square().sum(1) / (values if q <= m else values**2)  # squared part of y
        chosen = (
            _most_likely(values, fitted, float(y.square().sum()), m - Q.shape[1])
            if ridge == "auto"
            else float(ridge)
        )
        if q <= m:
            b = V @ (score / (values + chosen)[:, None])
        else:
            dual = V @ (score / (values * (values + chosen))[:, None])  # (m, k)
            dual = root * (dual - Q @ (Q.T @ dual))
            b = sum(T.T @ dual[rows] for rows, T in columns.blocks())
        rest = torch.cat([Y[rows] - T @ b for rows, T in columns.blocks()])
    else:
        rest = Y
    a = Vt.T[:, keep] @ ((Q.T @ (root * rest)) / s[keep, None])
    return _Fit(a, b, chosen)


def _most_likely(values: torch.Tensor, fitted: torch.Tensor, total: float, rows: int) -> float:
    """The penalty of highest restricted likelihood, on a grid of 12 decades.

    A penalty on |b|^2 is a normal prior on b; its restricted likelihood (Patterson and Thompson,
    1971) costs nothing more than the eigenvalues. Generalised cross-validation chose as well
    wherever it worked, but degenerates near as many masks as unknowns, and this does not.

    ``values`` are the eigenvalues, ``fitted`` the squared parts of the targets along them,
    ``total`` the targets' squared length and ``rows`` the dimensions that the free terms left.
    """
    grid = torch.logspace(-8, 4, 145, dtype=values.dtype, device=values.device)
    spread = values + grid[:, None]  # (grid, rank): variance along the eigenvectors
    outside = max(total - float(fitted.sum()), 0.0)
    misfit = (fitted / spread).sum(1) + outside / grid
    cost = rows * misfit.log() + spread.log().sum(1) + (rows - len(values)) * grid.log()
    return float(grid[cost.argmin()])


def solve_dense(
    image_sweep: Sweep,
    text_sweep: Sweep,
    *,
    order: int = 2,
    basis: str = "full",
    k: int = 72,
    scale: float | None = None,
    bias: float | None = None,
) -> Explanation:
    """The same plain least-squares fit as `solve` with ridge=0, with nothing split: the reference.

    Forms all m_I * m_T game values and one design row per value, so time and memory grow with the
    product of the sides; meant for tests and benchmarks. Parameters as in `solve`.
    """
    _check_options(order, 0.0, basis, k)
    scale, bias = _game_scale(image_sweep, text_sweep, scale, bias)
    n_I, n_T = image_sweep.n, text_sweep.n
    n = n_I + n_T
    Z, Y = image_sweep.masks.double(), text_sweep.masks.double()
    values = (image_sweep.embeddings.double() @ text_sweep.embeddings.double().T).flatten()
    weights = (image_sweep.weights[:, None] * text_sweep.weights).flatten()  # (m_I * m_T,)
    masks = torch.cat(
        [Z.repeat_interleave(len(Y), 0), Y.repeat(len(Z), 1)], 1
    )  # image-major: (m_I * m_T, n)

    i, j = torch.triu_indices(n, n, 1)
    if order == 1:
        i = j = i[:0]
    elif basis == "cross":
        cross = (i < n_I) & (j >= n_I)
        i, j = i[cross], j[cross]
    elif basis == "top":
        first = solve_dense(image_sweep, text_sweep, order=1, scale=1.0, bias=0.0)
        image_among, text_among = top_players(first.e1, n_I, k)
        kept = torch.zeros(n, dtype=torch.bool)
        kept[torch.cat([image_among, text_among + n_I])] = True
        i, j = i[kept[i] & kept[j]], j[kept[i] & kept[j]]
    c, e1, pairs = dense_fit(masks, weights, values, i, j)
    e2 = torch.zeros(n, n, dtype=torch.float64)
    e2[i, j] = e2[j, i] = pairs
    return pack(
        image_sweep,
        text_sweep,
        c,
        e1,
        e2,
        scale=scale,
        bias=bias,
        order=order,
        ridge=0.0,
        basis=basis,
    )


def dense_fit(
    masks: torch.Tensor,
    weights: torch.Tensor,
    values: torch.Tensor,
    i: torch.Tensor,
    j: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted least squares on 1, z_i and the products z_i z_j named by index: three parts."""
    m, n = masks.shape
    root = weights.sqrt()[:, None]
    design = torch.empty(m, 1 + n + len(i), dtype=torch.float64)  # in place: it is large
    design[:, :1], design[:, 1 : n + 1] = 1, masks
    torch.mul(masks[:, i], masks[:, j], out=design[:, n + 1 :])
    fit = torch.linalg.lstsq(design.mul_(root), root * values[:, None], driver="gelsd")
    solution = fit.solution[:, 0]
    return solution[0], solution[1 : n + 1], solution[n + 1 :]
