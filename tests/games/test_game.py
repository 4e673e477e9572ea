"""The joint game against its definition."""

import numpy as np
import pytest
import torch
from toy_games import Smooth, all_masks

from fixlip.games.game import Game


def test_values_are_inner_products_of_the_masked_sides():
    image, text = Smooth(4, seed=1), Smooth(3, seed=2)
    game = Game(image, text, scale=2.0, bias=-1.0)
    masks = all_masks(7)
    expected = [
        2 * float(image.embed(z[None, :4])[0] @ text.embed(z[None, 4:])[0]) - 1 for z in masks
    ]
    assert torch.allclose(game(masks), torch.tensor(expected, dtype=torch.float64), atol=1e-12)
    assert game.n == 7 and game.n_image == 4 and list(game.names) == [*image.names, *text.names]


def test_every_side_is_embedded_once_per_distinct_mask():
    image, text = Smooth(4, seed=1), Smooth(3, seed=2)
    rows = []
    embed = image.embed
    image.embed = lambda masks: rows.append(len(masks)) or embed(masks)
    Game(image, text)(all_masks(7))
    assert sum(rows) == 16


class Wide:
    n, names = 2, ("a", "b")

    def __init__(self, width):
        self.width = width

    def embed(self, masks):
        return torch.ones(len(masks), self.width)


def test_bad_masks_and_foreign_sides_are_refused():
    game = Game(Smooth(4, seed=1), Smooth(3, seed=2))
    with pytest.raises(ValueError, match=r"\(masks, 7\)"):
        game(torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(TypeError, match="or False, or 1 and 0"):
        game(torch.full((2, 7), 0.5))
    rows = np.array([[1, 0, 1, 0, 1, 1, 0], [0] * 7])
    for masks in (rows, rows.astype(bool), rows.tolist(), rows.astype(np.uint8), rows * 1.0):
        assert torch.equal(game(masks), game(torch.from_numpy(rows).bool()))
    with pytest.raises(ValueError, match="width 3 and 1"):
        Game(Wide(3), Wide(1))(torch.ones(1, 4, dtype=torch.bool))
    foreign = Smooth(3, seed=2, info={"model": {"name": "b", "fingerprint": "2"}})
    with pytest.raises(ValueError, match="same encoder"):
        Game(Smooth(4, seed=1), foreign)


def test_no_masks_have_no_values():
    """torch had nothing to put together."""
    game = Game(Smooth(3, width=4, seed=0), Smooth(2, width=4, seed=1))
    assert game(torch.zeros(0, 5, dtype=torch.bool)).shape == (0,)
