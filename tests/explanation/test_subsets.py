"""Subsets against literal searches: all of them, chain by chain, or one side at a time."""

import itertools

import numpy as np
import pytest

from fixlip import Explanation
from fixlip.explanation.subsets import exact, greedy, optimum, score, starting_players


def explanation(e1, e2, n_image=1):
    names = tuple(f"player {i}" for i in range(len(e1)))
    return Explanation(7.0, np.asarray(e1, float), np.asarray(e2, float), names, n_image)


def random(n, seed=0, whole=False):
    """Random terms; whole numbers add up without rounding, so that ties are ties."""
    rng = np.random.default_rng(seed)
    terms = rng.integers(-4, 5, (n, n + 1)) if whole else rng.normal(size=(n, n + 1))
    pairs = np.triu(terms[:, :n], 1)
    return explanation(terms[:, n], pairs + pairs.T, n_image=n // 2)


def cross_only(n_image, n_text, seed=0):
    pairs = np.zeros((n_image + n_text,) * 2)
    pairs[:n_image, n_image:] = np.random.default_rng(seed).normal(size=(n_image, n_text))
    return explanation(np.zeros(len(pairs)), pairs + pairs.T, n_image)


def literal_score(e, players):
    return sum(e.e1[i] for i in players) + sum(
        e.e2[i, j] for i, j in itertools.combinations(sorted(players), 2)
    )


def literal_exact(e):
    """Highest and lowest score of every size, by the definition."""
    scores = [
        [literal_score(e, s) for s in itertools.combinations(range(e.n), size)]
        for size in range(1, e.n + 1)
    ]
    return [max(row) for row in scores], [min(row) for row in scores]


def literal_greedy(e, starts):
    """One pool of every subset that any chain visits; then the best and the worst of each size."""
    pool = []
    for choose in (max, min):
        for start in starts:
            inside = [start]
            pool.append(tuple(inside))
            while len(inside) < e.n:
                outside = [v for v in range(e.n) if v not in inside]
                inside.append(
                    choose(outside, key=lambda v: e.e1[v] + sum(e.e2[u, v] for u in inside))
                )
                pool.append(tuple(inside))
    most, least = [], []
    for size in range(1, e.n + 1):
        of_size = [s for s in pool if len(s) == size]
        most.append(max(of_size, key=lambda s: literal_score(e, s)))
        least.append(min(of_size, key=lambda s: literal_score(e, s)))
    return most, least


def players_of(masks):
    return [np.flatnonzero(mask).tolist() for mask in masks]


def test_score_is_the_value_without_its_constant():
    e = random(6)
    masks = np.random.default_rng(1).random((20, 6)) < 0.5
    assert score(e, masks) == pytest.approx([literal_score(e, np.flatnonzero(m)) for m in masks])
    assert score(e, masks) == pytest.approx(e.value(masks) - e.e0)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("whole", [False, True])
def test_greedy_visits_what_the_definition_says(n, seed, whole):
    e = random(n, seed, whole)
    found = greedy(e)
    most, least = literal_greedy(e, range(n))
    assert players_of(found.most) == [sorted(s) for s in most]
    assert players_of(found.least) == [sorted(s) for s in least]
    assert found.most_scores == pytest.approx([literal_score(e, s) for s in most])
    assert found.least_scores == pytest.approx([literal_score(e, s) for s in least])
    assert found.sizes.tolist() == list(range(1, n + 1))


def test_greedy_from_chosen_players():
    e = random(8, 3)
    most, _ = literal_greedy(e, [6, 2])
    for starts in ([6, 2], ["player 6", 2], np.array([-2, 2])):
        assert players_of(greedy(e, starts=starts).most) == [sorted(s) for s in most]


def test_the_published_starts():
    e = random(120, 1)
    k = 19
    expected = set()
    for values in (e.attributions(), e.e1):
        rising = sorted(range(e.n), key=lambda i: values[i])
        small = sorted(range(e.n), key=lambda i: abs(values[i]))
        expected |= {*rising[:k], *rising[-k:], *small[:k]}
    assert starting_players(e) == sorted(expected) and 3 * k <= len(expected) <= 6 * k
    assert starting_players(random(5)) == list(range(5))
    by_default, published = greedy(e), greedy(e, starts="published")
    assert (by_default.most == published.most).all() and (by_default.least == published.least).all()
    assert players_of(greedy(e, starts="all").most)[0] == [int(e.e1.argmax())]
    small = random(100, 1)
    assert (greedy(small).most == greedy(small, starts="all").most).all()


def test_equal_players_go_in_playing_order():
    found = greedy(explanation(np.zeros(4), np.zeros((4, 4))))
    assert players_of(found.most) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert (found.most == found.least).all()


@pytest.mark.parametrize("n", [1, 2, 6, 9])
def test_exact_is_the_best_of_all(n):
    e = random(n, n)
    found, (most, least) = exact(e), literal_exact(e)
    assert found.most_scores == pytest.approx(most) and found.least_scores == pytest.approx(least)
    for masks, scores in ((found.most, most), (found.least, least)):
        assert masks.sum(1).tolist() == list(range(1, n + 1))
        assert [literal_score(e, s) for s in players_of(masks)] == pytest.approx(scores)


def test_exact_over_several_blocks_turns_with_the_players():
    e = random(17)  # two blocks
    turn = np.random.default_rng(0).permutation(17)
    turned = explanation(e.e1[turn], e.e2[np.ix_(turn, turn)])
    found, other = exact(e), exact(turned)
    assert (found.most[:, turn] == other.most).all() and (found.least[:, turn] == other.least).all()


def test_additive_explanations_need_no_search():
    e = explanation([3.0, -1.0, 2.0, -5.0, 0.5], np.zeros((5, 5)))
    for found in (greedy(e), exact(e)):
        assert found.most_scores.tolist() == [3.0, 5.0, 5.5, 4.5, -0.5]
        assert found.least_scores.tolist() == [-5.0, -6.0, -5.5, -3.5, -0.5]
    assert optimum(e, 2).proven and optimum(e, 2).mask.tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("n", [1, 2, 3, 7, 11])
@pytest.mark.parametrize("sense", ["most", "least"])
@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_optimum_proves_the_best_of_all(n, sense, scale):
    base = random(n, n + 20)
    e = explanation(scale * base.e1, scale * base.e2)
    best = getattr(exact(e), f"{sense}_scores")
    for size in range(1, n + 1):
        found = optimum(e, size, sense=sense)
        assert found.score == pytest.approx(best[size - 1], rel=1e-9)
        assert found.mask.sum() == size
        assert literal_score(e, np.flatnonzero(found.mask)) == pytest.approx(found.score)
        assert found.proven and found.bound == pytest.approx(found.score, abs=1e-4 * scale)


def test_optimum_finds_what_greedy_misses():
    pairs = np.zeros((6, 6))  # two couples; of a couple nobody likes to come first
    pairs[0, 1] = pairs[1, 0] = pairs[2, 3] = pairs[3, 2] = 10
    e = explanation([-4, -4, -4, -4, 0, 0], pairs)
    assert greedy(e).most_scores[3] == 2  # a couple and the two who do not care
    found = optimum(e, 4)
    assert found.mask.tolist() == [True] * 4 + [False] * 2 and found.score == 4 and found.proven
    assert exact(e).most_scores[3] == 4


def test_a_search_that_is_cut_off_has_a_valid_bound_and_claims_no_proof():
    e = random(18, 5)
    best = exact(e)
    open_ends = 0
    for size in (3, 6, 9, 12, 17):
        most = optimum(e, size, seconds=1e-3)
        least = optimum(e, size, sense="least", seconds=1e-3)
        assert most.score - 1e-9 <= best.most_scores[size - 1] <= most.bound
        assert least.score + 1e-9 >= best.least_scores[size - 1] >= least.bound
        for found in (most, least):
            open_ends += not found.proven
            assert found.proven == (abs(found.bound - found.score) < 1e-4)
    assert open_ends


@pytest.mark.parametrize("size", [4, 15, 29])
def test_cross_terms_alone_can_be_checked_one_side_at_a_time(size):
    e = cross_only(26, 6)
    best = -np.inf
    for words in itertools.product([0, 1], repeat=6):  # given the words, patches do not interact
        patches = size - sum(words)
        if 0 <= patches <= 26:
            gains = np.sort(e.cross @ np.array(words))[::-1]
            best = max(best, gains[:patches].sum())
    found = optimum(e, size)
    assert found.proven and found.score == pytest.approx(best)


def test_bad_input_is_named():
    e = random(5)
    with pytest.raises(ValueError, match="no players"):
        greedy(explanation([], np.zeros((0, 0)), n_image=0))
    with pytest.raises(ValueError, match=r"25 players have 2\*\*25 subsets.*use greedy"):
        exact(random(25))
    with pytest.raises(ValueError, match="starts, unless they are players, must be"):
        greedy(e, starts="player 1")
    with pytest.raises(ValueError, match="starts is empty"):
        greedy(e, starts=[])
    with pytest.raises(KeyError, match="no player is called 'dog'"):
        greedy(e, starts=["dog"])
    for size in (0, 6, 2.0, True):
        with pytest.raises(ValueError, match=r"size must be (a whole|at most 5)"):
            optimum(e, size)
    with pytest.raises(ValueError, match="sense must be"):
        optimum(e, 2, sense="max")
    with pytest.raises(ValueError, match="seconds must be positive"):
        optimum(e, 2, seconds=0)
    with pytest.raises(ValueError, match="k must be a whole number"):
        starting_players(e, 0)
    with pytest.raises(TypeError, match="1 and 0"):
        score(e, np.full((2, 5), 2))
