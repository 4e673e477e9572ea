"""Agreement with the game: plain definitions, the masks' law, and the loss over all masks."""

import itertools
import math
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import binom, chisquare
from toy_games import Smooth

from fixlip.explanation import Explanation
from fixlip.games import exact
from fixlip.games.game import Game
from fixlip.metrics import agreement, evaluation_masks, faithfulness, p_faithfulness

# --- the masks -----------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", [0.3, 0.5, 0.7, "shapley"])
def test_masks_are_distinct_and_follow_the_distribution(distribution):
    sample = evaluation_masks(43, 1000, distribution=distribution, seed=5)
    rows = [tuple(row) for row in sample.masks.tolist()]
    assert len(rows) == len(set(rows)) == 1000
    sizes, k = sample.masks.sum(1).numpy(), np.arange(44)
    if distribution == "shapley":
        assert not any(rows[0]) and all(rows[1])  # forced
        assert Counter(sizes.tolist())[1] == Counter(sizes.tolist())[42] == 43  # listed in full
        inner = np.array([1 / (s * (43 - s)) for s in range(2, 42)])
        drawn = np.bincount(sizes, minlength=44)[2:42]
        share = [float(sample.weights[sizes == s].sum()) for s in (1, 42)]
        mass = 1 / 42 / sum(1 / (s * (43 - s)) for s in range(1, 43))
        assert share == pytest.approx([mass * 998 / 1000] * 2, rel=0.01)
    else:
        inner, drawn = binom.pmf(k, 43, distribution), np.bincount(sizes, minlength=44)
        inner, drawn = inner[k % 43 > 3], drawn[k % 43 > 3]  # where some are expected
    expected = inner / inner.sum() * drawn.sum()
    enough = expected > 5
    assert chisquare(drawn[enough], expected[enough], sum_check=False).pvalue > 0.01
    again = evaluation_masks(43, 1000, distribution=distribution, seed=5)
    assert (again.masks == sample.masks).all()
    assert (evaluation_masks(43, 1000, distribution=distribution).masks != sample.masks).any()


def test_players_of_one_mask_size_are_exchangeable():
    masks = evaluation_masks(20, 4000, distribution=0.3, seed=1).masks.numpy()
    assert np.abs(masks.mean(0) - 0.3).max() < 5 * np.sqrt(0.21 / 4000)


def test_weights_stand_for_the_distribution_where_all_masks_are_listed():
    sample = evaluation_masks(5, 32, distribution=0.3)
    for mask, weight in zip(sample.masks.tolist(), sample.weights.tolist(), strict=True):
        assert weight == pytest.approx(0.3 ** sum(mask) * 0.7 ** (5 - sum(mask)))


# --- the measures --------------------------------------------------------------------------


def ranks(x):
    """Rank of each value, ties sharing their mean rank."""
    return np.array([np.mean([i for i, v in enumerate(sorted(x)) if v == value]) for value in x])


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())


def tau_b(a, b):
    balance = untied_a = untied_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        s, t = np.sign(a[i] - a[j]), np.sign(b[i] - b[j])
        balance, untied_a, untied_b = balance + s * t, untied_a + s**2, untied_b + t**2
    return balance / math.sqrt(untied_a * untied_b)


def literal(predicted, truth):
    return {
        "r2": 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum(),
        "mse": ((truth - predicted) ** 2).mean(),
        "mae": abs(truth - predicted).mean(),
        "pearson": pearson(predicted, truth),
        "spearman": pearson(ranks(predicted), ranks(truth)),
        "kendall": tau_b(predicted, truth),
        "cosine": (predicted @ truth) / math.sqrt((predicted @ predicted) * (truth @ truth)),
    }


@pytest.mark.parametrize("tied", [False, True])
def test_every_measure_equals_its_definition(tied):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=60)
    predicted = truth + rng.normal(size=60) + 0.5
    if tied:
        predicted, truth = predicted.round(), truth.round()
    assert agreement(predicted, truth) == pytest.approx(literal(predicted, truth))


def test_integer_weights_are_repeated_masks():
    rng = np.random.default_rng(1)
    predicted, truth = rng.normal(size=(2, 20))
    times = rng.integers(1, 5, size=20)
    weighted = agreement(predicted, truth, weights=times)
    repeated = literal(np.repeat(predicted, times), np.repeat(truth, times))
    plain = literal(predicted, truth)
    for name, value in weighted.items():
        by_rank = name in ("spearman", "kendall")
        assert value == pytest.approx((plain if by_rank else repeated)[name])


def test_constants_give_nan_and_a_warning_that_says_so():
    rising = np.arange(5.0)
    with pytest.warns(UserWarning, match="the prediction is constant over these 5 masks"):
        found = agreement(np.full(5, 0.1 + 0.2), rising)
    assert found["r2"] == pytest.approx(1 - np.mean((rising - 0.3) ** 2) / 2)
    assert all(math.isnan(found[name]) for name in ("pearson", "spearman", "kendall"))
    with pytest.warns(UserWarning, match="the game is constant"):
        found = agreement(rising, np.ones(5))
    assert all(math.isnan(found[name]) for name in ("r2", "pearson", "spearman", "kendall"))
    with pytest.warns(UserWarning, match="the prediction is constant"):
        assert math.isnan(agreement(np.zeros(5), rising)["cosine"])


# --- explanations --------------------------------------------------------------------------


def explanation(seed, n_image, n, e0=0.0, pairs=True):
    rng = np.random.default_rng(seed)
    e2 = np.triu(rng.normal(size=(n, n)), 1) * pairs
    return Explanation(e0, rng.normal(size=n), e2 + e2.T, tuple(map(str, range(n))), n_image)


class Counted(Smooth):
    """A side that remembers which masks it embedded."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.seen = []

    def embed(self, masks):
        self.seen += map(tuple, masks.tolist())
        return super().embed(masks)


def test_faithfulness_equals_the_published_steps():
    image, text = Counted(8, seed=2), Counted(4, seed=3)
    game, given = Game(image, text), {"a": explanation(0, 8, 12, 1.5), "b": explanation(1, 8, 12)}
    table = faithfulness(given, game, count=200, seed=4)
    assert len(image.seen) == len(set(image.seen)) and len(text.seen) == len(set(text.seen)) <= 16
    assert list(table.distribution) == [0.3, 0.5, 0.7, "shapley"] * 2
    empty = float(game(torch.zeros(1, 12, dtype=torch.bool)))
    for row in table.to_dict("records"):
        method, distribution = given[row.pop("method")], row.pop("distribution")
        masks = evaluation_masks(12, 200, distribution=distribution, seed=4).masks
        truth = np.array([float(game(mask[None])) - empty for mask in masks])
        predicted = []
        for mask in masks.tolist():
            # all coefficients of subsets of the mask; a constant only where there is one, and it
            # is that of the game, not of the game minus its empty value
            total = method.e0 - empty if method.e0 else 0.0
            kept = [i for i in range(12) if mask[i]]
            total += sum(method.e1[i] for i in kept)
            total += sum(method.e2[i, j] for i, j in itertools.combinations(kept, 2))
            predicted.append(total)
        assert row == pytest.approx(literal(np.array(predicted), truth))


def test_what_options_change():
    side = Smooth(9, seed=2)

    def game(masks):
        return side.embed(masks)[:, 0]

    given = {"e": explanation(0, 4, 9, 3.0)}
    one = {"distributions": ["shapley"], "count": 300}
    plain, free = (faithfulness(given, game, offset=o, **one).loc[0] for o in ("published", "free"))
    for name in ("pearson", "spearman", "kendall"):
        assert plain[name] == pytest.approx(free[name])
    masks = evaluation_masks(9, 300, distribution="shapley")
    truth, predicted = game(masks.masks).numpy(), given["e"].value(masks.masks)
    assert free.mse == pytest.approx(np.var(truth - predicted))  # the best constant: mean zero
    assert free.r2 == pytest.approx(1 - np.var(truth - predicted) / np.var(truth))
    assert free.r2 > plain.r2
    weighted = faithfulness(given, game, weighted=True, **one).loc[0]
    w = masks.weights.numpy()
    assert weighted.mse == pytest.approx(w @ (truth - predicted) ** 2)
    assert weighted.spearman == plain.spearman


def test_the_fit_of_each_p_is_best_on_masks_of_its_p():
    game = Game(Smooth(6, seed=2), Smooth(5, seed=3))
    values = exact.game_values(game)
    fits = {q: exact.weighted_banzhaf(values, p=q, n_image=6) for q in (0.2, 0.5, 0.8)}
    for q in fits:
        loss = p_faithfulness(fits, game, p=q).set_index("method").loss
        assert loss.idxmin() == q
        own = faithfulness(fits, game, distributions=[q], count=600, weighted=True)
        assert own.set_index("method").mse.idxmin() == q


# --- the loss ------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.3, 0.5, (0.8, 0.4)])
def test_the_loss_is_the_sum_over_all_masks(p):
    game = Game(Smooth(4, seed=2), Smooth(3, seed=3))
    given = {"a": explanation(0, 4, 7, 1.5), "b": explanation(1, 4, 7, pairs=False)}
    keep = np.repeat(p if isinstance(p, tuple) else (p, p), [4, 3])
    empty, mean, square = float(game(torch.zeros(1, 7, dtype=torch.bool))), 0.0, 0.0
    loss = dict.fromkeys(given, 0.0)
    for bits in itertools.product([False, True], repeat=7):
        chance = math.prod(q if bit else 1 - q for q, bit in zip(keep, bits, strict=True))
        value = float(game(torch.tensor([bits])))
        mean, square = mean + chance * value, square + chance * value**2
        for name, each in given.items():
            shift = 0.0 if each.e0 else empty
            loss[name] += chance * (value - shift - each.value(np.array([bits]))[0]) ** 2
    table = p_faithfulness(given, game, p=p, count=128).set_index("method")
    assert table.loss.to_dict() == pytest.approx(loss) and not table.stderr.any()
    explained = {name: 1 - x / (square - mean**2) for name, x in loss.items()}
    assert table.explained.to_dict() == pytest.approx(explained)


def test_fixlip_has_the_least_loss_and_the_best_constant():
    game = Game(Smooth(4, seed=2), Smooth(3, seed=3))
    best = exact.weighted_banzhaf(exact.game_values(game), p=0.3, n_image=4)
    rng = np.random.default_rng(0)
    given = {"best": best}
    for k in range(5):
        e2 = np.triu(rng.normal(size=(7, 7)) * 0.01, 1)
        moved = best.e0, best.e1 + rng.normal(size=7) * 0.01, best.e2 + e2 + e2.T
        given[k] = Explanation(*moved, best.players, 4)
    losses = [
        p_faithfulness(given, game, p=0.3, offset=o).set_index("method").loss
        for o in ("published", "free")
    ]
    for loss in losses:
        assert loss.idxmin() == "best"
    assert losses[1]["best"] == pytest.approx(losses[0]["best"])  # its mean error is zero
    assert losses[1][1] < losses[0][1]


def test_sampled_losses_have_honest_errors():
    game, given = Game(Smooth(6, seed=2), Smooth(5, seed=3)), {"a": explanation(0, 6, 11, 1.5)}
    truth = p_faithfulness(given, game, p=(0.3, 0.6)).loss[0]
    found = [
        p_faithfulness(given, game, p=(0.3, 0.6), count=200, seed=seed).loc[0] for seed in range(60)
    ]
    losses = np.array([f.loss for f in found])
    stderr = np.array([f.stderr for f in found])
    assert abs(losses.mean() - truth) < 4 * losses.std(ddof=1) / math.sqrt(60)
    assert stderr.mean() == pytest.approx(losses.std(ddof=1), rel=0.3)
    assert np.mean(np.abs(losses - truth) < 2 * stderr) > 0.85


# --- errors --------------------------------------------------------------------------------


def total(masks):
    return masks.sum(1).double()


def test_constant_methods_are_named_and_do_not_stop_the_others():
    flat = Explanation(0.0, np.zeros(6), np.zeros((6, 6)), tuple("abcdef"), 3)
    with pytest.warns(UserWarning, match="flat is constant over these 30 masks"):
        table = faithfulness({"flat": flat, "e": explanation(0, 3, 6)}, total, count=30)
    table = table.set_index("method")
    assert table.loc["flat"].spearman.isna().all() and table.loc["e"].spearman.notna().all()
    with pytest.warns(UserWarning, match="explained is NaN"):
        given = {"e": explanation(0, 3, 6)}
        assert p_faithfulness(given, lambda masks: torch.ones(len(masks))).explained.isna().all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faithfulness(given, total, count=30)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluation_masks(5, 4, distribution="banzhaf"), 'a p in \\(0, 1\\) or "shapley"'),
        (lambda: evaluation_masks(5, 4, distribution=1.0), "strictly between 0 and 1"),
        (lambda: evaluation_masks(5, 2, distribution="shapley"), "got count=2"),
        (lambda: evaluation_masks(5, 0), "1 or more"),
        (lambda: agreement(np.ones(3), np.ones(4)), r"\(3,\) and \(4,\)"),
        (lambda: agreement(np.ones(1), np.ones(1)), "two masks or more"),
        (lambda: agreement(np.array([1, np.nan]), np.ones(2)), "finite"),
        (lambda: agreement(np.ones(2), np.ones(2), weights=np.zeros(2)), "positive"),
        (lambda: faithfulness({}, total), "no explanations"),
        (
            lambda: faithfulness({"a": explanation(0, 2, 5), "b": explanation(0, 2, 6)}, total),
            "b explains 6 players, and the game has 5",
        ),
        (lambda: faithfulness({"a": explanation(0, 2, 5)}, total, offset="no"), "offset must be"),
        (lambda: p_faithfulness({"a": explanation(0, 2, 5)}, total, p=0), "strictly between"),
        (lambda: p_faithfulness({"a": explanation(0, 2, 5)}, total, count=1), "standard error"),
        (
            lambda: p_faithfulness(
                {"a": explanation(0, 2, 5), "b": explanation(0, 3, 5)}, total, p=(0.5, 0.3)
            ),
            "the same number of image players",
        ),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("unit", [4e307, 1e200, 1e-200])
def test_agreement_does_not_depend_on_the_unit(unit):
    """Squares of such numbers overflow: correlations were NaN."""
    predicted, truth = np.array([1.0, 2, 1, 4]), np.array([1.0, 2, 3, 3])
    plain, scaled = agreement(predicted, truth), agreement(unit * predicted, unit * truth)
    for name in ("r2", "pearson", "spearman", "kendall", "cosine"):
        assert scaled[name] == pytest.approx(plain[name], rel=1e-12)
    assert scaled["mae"] == pytest.approx(unit * plain["mae"])


def test_arguments_that_are_exchanged_are_told():
    e = Explanation(0.0, np.array([1.0, 3.0]), np.zeros((2, 2)), ("a", "b"), 1)
    for explanations, game in (([e], e.value), (e.value, {"e": e}), ({"e": None}, e.value)):
        with pytest.raises(TypeError, match=r"expected (\{name|an Explanation, got)"):
            p_faithfulness(explanations, game)
