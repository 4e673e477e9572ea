"""Tests of fixlip.encoders.players: ownership of patches and tokens, and their names."""

import numpy as np
import pytest
import torch

from fixlip.encoders import players


def test_patches_are_named_row_by_row():
    side = players.patches(3, 4)
    assert side.n == 12 and side.kind == "patches"
    assert side.names[0] == "(0,0)" and side.names[-1] == "(2,3)" and side.names[4] == "(1,0)"


def test_units_repeats_each_player_over_its_units():
    side = players.blocks(3, 3, 2)
    masks = torch.rand(5, side.n, generator=torch.Generator().manual_seed(0)) < 0.5
    units = side.units(masks)
    assert units.shape == (5, 9) and units.dtype == torch.bool
    for row in range(5):
        for unit, owner in enumerate(side.owner):
            assert units[row, unit] == masks[row, owner]


@pytest.mark.parametrize("rows,cols,size", [(4, 4, 2), (7, 7, 3), (5, 8, 3), (2, 6, 2), (1, 1, 1)])
def test_blocks_against_loops(rows, cols, size):
    side = players.blocks(rows, cols, size)
    for row in range(rows):
        for col in range(cols):
            name = f"({row // size},{col // size})"
            assert side.names[side.owner[row * cols + col]] == name


@pytest.mark.parametrize("size", [0, -1, 8])
def test_blocks_of_impossible_size(size):
    with pytest.raises(ValueError, match="do not fit the grid of 7x7"):
        players.blocks(7, 7, size)


def test_regions_go_to_the_largest_coverage_of_at_least_half():
    dog = np.zeros((8, 8), bool)
    dog[:4, :4] = True  # patch (0,0) whole
    dog[:4, 4:6] = True  # half of patch (0,1)
    cat = np.zeros((8, 8), bool)
    cat[4:, :4] = True  # patch (1,0) whole
    cat[4:, 4:5] = True  # a quarter of patch (1,1)
    side = players.regions({"dog": dog, "cat": cat}, 2, 2)
    assert side.names == ("dog", "cat", "rest")
    assert side.owner.tolist() == [0, 0, 1, 2]


def test_regions_that_cover_everything_leave_no_rest():
    left = np.zeros((6, 6), bool)
    left[:, :3] = True
    side = players.regions({"region 1": left, "region 2": ~left}, 2, 2)
    assert side.names == ("region 1", "region 2") and side.owner.tolist() == [0, 1, 0, 1]


def test_regions_overlap_and_pixels_beyond_the_last_patch():
    small = np.zeros((7, 7), bool)
    small[:3, :2] = True  # two thirds of the 3x3 patch (0,0)
    large = np.zeros((7, 7), bool)
    large[:3, :3] = True
    large[6, :] = True  # the seventh row is no patch of a 2x2 grid of 3x3 patches
    with pytest.raises(
        ValueError, match="'small' owns no patch: 'large' cover the same patches as"
    ):
        players.regions({"small": small, "large": large}, 2, 2)
    assert players.regions({"large": large}, 2, 2).owner.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    "masks,message",
    [
        ({}, "no regions"),
        ({"rest": np.ones((4, 4), bool)}, "'rest' is kept"),
        ({"dog": np.ones((4, 4, 3), bool)}, r"'dog' has shape \(4, 4, 3\)"),
        ({"dog": np.zeros((4, 4), bool)}, "'dog' owns no patch: it covers at most 0%"),
        (
            {name: np.ones((4, 4), bool) for name in ("dog", "cat")},
            "'cat' owns no patch: 'dog' cover the same patches as much or more",
        ),
        (
            {
                "left": np.array([4 * [True, True, False, False]]).reshape(4, 4),
                "right": np.array([4 * [False, False, True, True]]).reshape(4, 4),
                "all": np.ones((4, 4), bool),
            },
            "'all' owns no patch: 'left' and 'right' cover the same patches",
        ),
        ({1: np.ones((4, 4), bool), "1": np.ones((4, 4), bool)}, "two regions have one name"),
    ],
)
def test_bad_regions(masks, message):
    with pytest.raises(ValueError, match=message):
        players.regions(masks, 2, 2)


def test_tokens_are_readable_and_may_repeat():
    side = players.tokens([" a", " star", "fish", " a"])
    assert side.names == ("a", "star", "fish", "a") and side.owner.tolist() == [0, 1, 2, 3]


def test_words_join_subwords_and_leave_punctuation_alone():
    side = players.words([" a", " star", "fish", ",", " t", "-", "shirt", "!", "!"])
    assert side.names == ("a", "starfish", ",", "t", "-", "shirt", "!", "!")
    assert side.owner.tolist() == [0, 1, 1, 2, 3, 4, 5, 6, 7]


def test_a_lone_space_piece_belongs_to_what_follows():
    assert players.words([" ", "star", " ", "fish"]).names == ("star", "fish")
    assert players.tokens([" ", "star"]).names == ("<space>", "star")


def test_bytes_of_one_character_are_readable():
    fire = " 🔥".encode().decode("ascii", "surrogateescape")
    pieces = [" a", fire[:3], fire[3:]]  # two bytes, then two bytes of one character
    assert players.tokens(pieces).names == ("a", "<F0 9F>", "<94 A5>")
    assert players.words(pieces).names == ("a", "🔥")


def test_players_check_their_owner():
    with pytest.raises(ValueError, match="each of the 2 players"):
        players.Players("tokens", ("a", "b"), np.array([0, 0]))
    with pytest.raises(ValueError, match="each of the 1 players"):
        players.Players("tokens", ("a",), np.array([0, 1]))
    owner = players.patches(2, 2).owner
    with pytest.raises(ValueError, match="read-only"):
        owner[0] = 3
