"""The published protocol by name: options, budgets, and which game judges which method."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fixlip
from fixlip.explainers.methods import PUBLISHED, explain_all
from fixlip.explainers.presets import STAND_IN, Protocol

CAPTION = "a red star"


@pytest.fixture(scope="module")
def encoder():
    return fixlip.load("demo-clip", device="cpu")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


def players(*counts):
    """Sides of so many players."""
    return [SimpleNamespace(n=n) for n in counts]


def test_by_default_nothing_is_changed(encoder, pixels):
    protocol = Protocol()
    sides = protocol.sides(encoder, pixels, CAPTION)
    assert protocol.settings == protocol.options(*sides) == {"steps": 50}
    assert sides[1].stand_in is None
    found = dict.fromkeys(("GAME", "FIxLIP p=0.5"))
    [(some, game)] = protocol.judges(found, *sides)
    assert list(some) == list(found) and (game.image_side, game.text_side) == sides
    # what the defaults are called changes nothing either, so that kept tables apply
    same = Protocol("ours", removed="hidden", stand_in=7, steps=50)
    assert same.settings == protocol.settings and same.removed == protocol.removed


@pytest.mark.parametrize("patches, basis", [(49, None), (64, None), (196, "top"), (256, "top")])
def test_published_fits_have_the_published_pairs(patches, basis):
    curves, pointing = (
        Protocol("published", pointing=p).options(*players(patches, 9)) for p in (False, True)
    )
    expected = dict(PUBLISHED) | ({"basis": basis} if basis else {})
    assert curves == expected
    assert pointing == expected | ({"basis": "cross"} if basis else {})


def test_budgets_are_split_as_published():
    def masks(preset, n, **options):
        return Protocol(preset, **options).options(*players(49, n))["masks"]

    assert masks("published", 8, budget=2**21) == masks("ours", 8, budget=2**21) == (8848, 237)
    assert masks("ours", 12, budget=2**21) == (5907, 355)
    pointing = [masks("published", k, budget=2**20, pointing=True) for k in (1, 2, 3, 4, 12)]
    assert pointing == [(2**18, 2), (2**18, 4), (2**17, 8), (2**16, 16), (2**14, 64)]


def test_steps_are_the_presets_unless_given():
    assert [Protocol(name).steps for name in ("ours", "published")] == [50, 20]
    assert Protocol("published", steps=7).options(*players(49, 8))["steps"] == 7
    assert Protocol("ours", steps=7).settings == {"steps": 7}


def test_settings_tell_protocols_apart():
    made = [
        *(Protocol(), Protocol("published"), Protocol("published", removed="hidden")),
        *(Protocol(removed="both"), Protocol(removed="replaced"), Protocol(budget=64)),
        *(Protocol(removed="both", stand_in=1), Protocol(steps=3)),
    ]
    settings = [str(protocol.settings) for protocol in made]
    assert len(set(settings)) == len(settings)


def test_as_published_each_method_has_its_own_game(encoder, pixels):
    protocol = Protocol("published", stand_in=1)
    sides = protocol.sides(encoder, pixels, CAPTION)
    methods = ("GAME", "Grad-ECLIP", "ITSM-O", "exCLIP", "exCLIP, layer 0", "FIxLIP")
    found = explain_all(*sides, methods=methods, p=0.5, masks=700, **protocol.options(*sides))
    found["GAME, scaled"] = found["GAME"]
    (replaced, other), (hidden, own) = protocol.judges(found, *sides)
    by_gradients = ["GAME", "Grad-ECLIP", "exCLIP", "exCLIP, layer 0", "GAME, scaled"]
    assert list(replaced) == by_gradients and list(hidden) == ["ITSM-O", "FIxLIP p=0.5"]
    masks = torch.rand(16, own.n, generator=torch.Generator().manual_seed(0)) < 0.5
    texts = [encoder.text(CAPTION), encoder.text(CAPTION, stand_in=1)]
    values = [fixlip.Game(sides[0], text)(masks) for text in texts]
    assert torch.equal(own(masks), values[0]) and torch.equal(other(masks), values[1])
    assert not torch.allclose(*values, atol=0.1)


def test_players_are_the_same_in_both_games(encoder, pixels):
    sides = encoder.image(pixels), encoder.text(CAPTION, players="words")
    protocol = Protocol(removed="both", stand_in=1)
    (_, other), (_, own) = protocol.judges(dict.fromkeys(("GAME", "ITSM-O")), *sides)
    assert other.text_side.info["players"] == "words" and other.names == own.names


def test_replaced_words_can_be_explained_and_judged_throughout(encoder, pixels):
    protocol = Protocol(removed="replaced", stand_in=1)
    sides = protocol.sides(encoder, pixels, CAPTION)
    assert sides[1].stand_in == 1
    [(some, game)] = protocol.judges(dict.fromkeys(("GAME", "ITSM-O")), *sides)
    assert len(some) == 2 and game.text_side is sides[1]


def test_the_methods_judged_by_replaced_words_ask_for_no_masks(encoder, pixels):
    """So it does not matter to them which of the two games they are told to explain."""
    image = encoder.image(pixels)
    methods = ("GAME", "Grad-ECLIP", "exCLIP")
    one, two = (
        explain_all(image, encoder.text(CAPTION, **how), methods=methods, **PUBLISHED)
        for how in ({}, {"stand_in": 1})
    )
    for name in methods:
        assert np.allclose(one[name].e1, two[name].e1, atol=1e-6), name
        assert np.allclose(one[name].e2, two[name].e2, atol=1e-6), name


def test_no_game_is_made_for_no_explanations(encoder, pixels):
    sides = encoder.image(pixels), encoder.text(CAPTION)
    assert Protocol().judges({}, *sides) == Protocol("published", stand_in=1).judges({}, *sides)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"preset": "paper"}, 'preset must be "ours" or "published", got \'paper\''),
        ({"removed": "masked"}, 'removed must be "hidden", "replaced" or "both"'),
        ({"budget": -1}, "budget must be a whole number of 0 or more, got -1"),
        ({"steps": -5}, "steps must be a whole number of 0 or more, got -5"),
        ({"budget": 1.5}, "budget must be a whole number of 0 or more, got 1.5"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError) as caught:
        Protocol(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [{"preset": "published"}, {"removed": "replaced"}])
def test_a_token_that_the_model_lacks_is_refused_before_any_work(encoder, pixels, options):
    with pytest.raises(ValueError, match=f"the id of a token, below 30, got {STAND_IN}"):
        Protocol(**options).sides(encoder, pixels, CAPTION)
    Protocol(**options, pointing=True).options(*players(49, 2))  # plays no part there
