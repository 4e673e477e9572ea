"""All methods in one call: each as its own module gives it, and no work done twice."""

import itertools

import numpy as np
import pytest
import torch

import fixlip
from fixlip.explainers import exclip, generic_attention, grad_eclip, icam, itsm, lime
from fixlip.explainers.methods import FIRST_ORDER, METHODS, PUBLISHED, explain_all
from fixlip.sampler import side_seeds

OPTIONS = {"masks": (96, 64), "joint": 200, "samples": 100, "steps": 5, "seed": 3}


@pytest.fixture(scope="module")
def sides():
    encoder = fixlip.load("demo-clip", device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    return encoder.image(pixels), encoder.text("a red star")


@pytest.fixture(scope="module")
def found(sides):
    return explain_all(*sides, **OPTIONS)


def test_names_orders_and_sizes(sides, found):
    names = [name for name in METHODS if name != "FIxLIP"]
    assert list(found) == [*names, "FIxLIP p=0.3", "FIxLIP p=0.5", "FIxLIP p=0.7"]
    for name, explanation in found.items():
        assert explanation.n_image == 36 and explanation.n == 36 + sides[1].n
        assert (not explanation.e2.any()) == (name in FIRST_ORDER)
        assert explanation.e1.any() or explanation.cross.any()


@pytest.mark.filterwarnings("ignore:.*are few")
def test_each_is_what_its_module_gives(sides, found):
    scale = sides[0].encoder.logit_scale

    def inner(module, **options):
        image, text = (module.factor(side, **options).first.numpy() for side in sides)
        return image @ text.T

    maps = {
        "ITSM-O": inner(itsm),
        "ITSM-H": inner(itsm, variant="hidden"),
        "InteractionCAM": inner(icam),
        "InteractionLIME": lime.explain(*sides, samples=100, seed=3, scale=1).cross,
        "exCLIP": inner(exclip, steps=5),
        "exCLIP, layer 0": inner(exclip, steps=1, layer=0, rule="midpoint"),
    }
    for name, cross in maps.items():
        assert np.allclose(found[name].cross, scale * cross, rtol=1e-5, atol=1e-6), name
    game = fixlip.Game(*sides)
    seeds = side_seeds(3)
    swept = [
        fixlip.sweep(s, masks=m, seed=k) for s, m, k in zip(sides, (96, 64), seeds, strict=True)
    ]
    values = {
        "GAME": generic_attention.explain(*sides),
        "Grad-ECLIP": grad_eclip.explain(*sides),
        "Shapley values": fixlip.estimate(game, index="shapley", order=1, masks=200, seed=3),
        "Banzhaf values": fixlip.solve(*swept, order=1),
    }
    for name, single in values.items():
        assert np.allclose(found[name].e1, single.e1, rtol=1e-5, atol=1e-6), name
    joint = fixlip.estimate(game, index="shapley", masks=200, seed=3)
    assert np.allclose(found["Shapley interactions"].e2, joint.e2)
    for q in (0.3, 0.5, 0.7):
        own = fixlip.explain(
            sides[0].encoder, sides[0].picture, "a red star", p=q, masks=(96, 64), seed=3
        )
        assert np.allclose(found[f"FIxLIP p={q}"].e2, own.e2, rtol=1e-4, atol=1e-4)


def test_values_from_interactions_of_order_2(sides, found):
    options = {**OPTIONS, "methods": ("Shapley values", "Banzhaf values"), "source": "order 2"}
    shared = explain_all(*sides, **options)
    assert list(shared) == ["Shapley values", "Banzhaf values"]
    pairs = found["FIxLIP p=0.5"]
    banzhaf = shared["Banzhaf values"]
    assert np.allclose(banzhaf.e1, pairs.attributions()) and not banzhaf.e2.any()
    # the best first-order fit of a polynomial of order 2 under p = .5 has its mean
    masks = torch.rand(20_000, pairs.n, generator=torch.Generator().manual_seed(0)) < 0.5
    gap = banzhaf.value(masks) - pairs.value(masks)
    assert abs(gap.mean()) < 5 * gap.std() / np.sqrt(len(gap))
    shapley = shared["Shapley values"]
    grand = torch.ones(1, pairs.n, dtype=torch.bool)
    assert shapley.value(~grand)[0] == pytest.approx(pairs.empty_value)
    assert shapley.value(grand)[0] == pytest.approx(pairs.grand_value)


def test_sides_are_worked_on_once(sides, found, monkeypatch):
    image_side, text_side = sides
    counts = {"image": 0, "text": 0}
    for side, kind in ((image_side, "image"), (text_side, "text")):
        embed = side.embed

        def counted(masks, embed=embed, kind=kind):
            counts[kind] += len(masks)
            return embed(masks)

        monkeypatch.setattr(side, "embed", counted, raising=False)
    cache, only = {}, {**OPTIONS, "methods": ("FIxLIP", "Banzhaf values", "exCLIP"), "p": 0.5}
    first = explain_all(*sides, **only, cache=cache)
    # 8 masks of 3 players are all there are, the empty and the full one included; exCLIP asks for
    # these two once more
    assert counts == {"image": 98 + 2, "text": 8 + 2}
    assert np.array_equal(first["FIxLIP p=0.5"].e2, found["FIxLIP p=0.5"].e2)
    other = image_side.encoder.text("a blue ring")
    explain_all(image_side, other, **only, cache=cache)
    assert counts == {"image": 98 + 2, "text": 8 + 2}
    explain_all(*sides, **{**only, "seed": 4}, cache=cache)
    assert counts["image"] == 2 * 98 + 2


def test_what_is_written_into_the_info_of_one_explanation_stays_there(sides):
    cache = {}
    options = {"methods": ("FIxLIP", "ITSM-O"), "p": (0.4, 0.5), "masks": 32, "cache": cache}
    first, second = (explain_all(*sides, **options) for _ in range(2))
    one, *others = [*first.values(), *second.values()]
    one.info["image"]["grid"].append("mine")
    one.info["text"]["model"]["name"] = "mine"
    for side, other in itertools.product(sides, others):
        assert "mine" not in str(side.info) + str(other.info)


def test_what_is_refused(sides):
    with pytest.raises(ValueError, match=r"unknown methods.*LIMES.*the methods are GAME"):
        explain_all(*sides, methods=("LIMES",))
    with pytest.raises(ValueError, match="source must be"):
        explain_all(*sides, source="order 3")


@pytest.mark.filterwarnings("ignore:.*are few")
def test_the_published_sampling_and_fit_reach_every_method(sides):
    methods = ("exCLIP", "Banzhaf values", "Shapley values", "Shapley interactions", "FIxLIP")
    budget = OPTIONS | {"steps": 3}
    options = budget | {**PUBLISHED, "steps": 3, "basis": "top", "k": 12}
    found = explain_all(*sides, methods=methods, p=0.5, **options)
    seeds = side_seeds(3)
    swept = [
        fixlip.sweep(s, masks=m, seed=k, sampling="distinct-reference")
        for s, m, k in zip(sides, (96, 64), seeds, strict=True)
    ]
    fit = {"ridge": 0, "basis": "top", "k": 12}
    expected = {
        "FIxLIP p=0.5": fixlip.solve(*swept, errors=False, **fit),
        "exCLIP": fixlip.pair(*(exclip.factor(s, steps=3, variant="fixlip") for s in sides)),
    }
    joint = {"index": "shapley", "masks": 200, "seed": 3, "sampling": "distinct-reference", **fit}
    expected["Shapley interactions"] = fixlip.estimate(fixlip.Game(*sides), **joint)
    for name, explanation in expected.items():
        assert np.array_equal(found[name].e2, explanation.e2), name
        assert explanation.e2.any()
    plain = explain_all(*sides, methods=methods, p=0.5, **budget)
    for name in set(found) - {"Shapley values"}:  # order 1 of masks with no size listed: the same
        terms = [e[name].e1 + e[name].e2 for e in (plain, found)]
        assert not np.allclose(*terms), name


def test_the_game_of_a_stand_in_is_explained_by_every_method_that_masks(sides):
    other = sides[0], sides[0].encoder.text("a red star", stand_in=5)
    one, two = (
        explain_all(*pair, methods=("FIxLIP", "GAME"), p=0.5, **OPTIONS) for pair in (sides, other)
    )
    assert not np.allclose(one["FIxLIP p=0.5"].cross, two["FIxLIP p=0.5"].cross, atol=1e-3)
    assert np.array_equal(one["GAME"].e1, two["GAME"].e1)  # needs no masks
