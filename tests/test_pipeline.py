"""One pair end to end on the demo models: exactness, forward rows, and what is recorded."""

import numpy as np
import pytest
import torch

import fixlip
from fixlip.paths import root

IMAGE = root() / "data/scenes/val/000000000209.png"
CAPTION = "a blue heart left of a red arrow"
DEMOS = ("demo-clip", "demo-siglip", "demo-siglip-fine")


@pytest.fixture(scope="module")
def encoder():
    return fixlip.load("demo-clip")


@pytest.fixture
def rows(encoder):
    """Rows that went through each tower, counted at its first block."""
    seen = {"image": 0, "text": 0}
    towers = {"image": encoder.model.visual.transformer, "text": encoder.model.transformer}

    def count(name):
        return lambda module, args: seen.__setitem__(name, seen[name] + len(args[0]))

    hooks = [t.resblocks[0].register_forward_pre_hook(count(n)) for n, t in towers.items()]
    yield seen
    for hook in hooks:
        hook.remove()


def test_an_explanation_runs_every_tower_at_most_once_per_mask_and_twice_more(encoder, rows):
    fixlip.explain(encoder, IMAGE, CAPTION, masks=(101, 60))
    assert 0 < rows["image"] <= 103 and 0 < rows["text"] <= 62


@pytest.mark.parametrize("p", [0.5, (0.4, 0.6)])
def test_masks_are_drawn_until_the_tolerance_is_met(encoder, rows, p):
    found = fixlip.explain(encoder, IMAGE, CAPTION, masks="auto", tolerance=0.15, p=p, seed=3)
    budget = found.info["budget"]
    used = rows["image"], rows["text"]
    given = fixlip.explain(encoder, IMAGE, CAPTION, masks=tuple(budget["masks"]), p=p, seed=3)
    # batches of other sizes round otherwise in the last bits
    for a, b in ((found.e0, given.e0), (found.e1, given.e1), (found.e2, given.e2)):
        assert np.allclose(a, b, rtol=0, atol=1e-5 * np.abs(given.e2).max())
    spread, same = found.stderr.e2, given.stderr.e2
    assert np.allclose(spread, same, rtol=1e-2, atol=1e-4 * same.max())
    assert used == (rows["image"] - used[0], rows["text"] - used[1])  # nothing embedded twice
    assert all(u <= m + 2 for u, m in zip(used, budget["masks"], strict=True))
    error = np.square(found.stderr.e2[: found.n_image, found.n_image :]).mean()
    size = np.square(found.cross).mean() - error
    assert budget["error"] == pytest.approx((error / size) ** 0.5, rel=1e-4)
    assert budget["error"] <= budget["tolerance"] == 0.15 and budget["rounds"] >= 2
    assert [found.info[side]["masks"] for side in ("image", "text")] == budget["masks"]


def test_the_report_of_the_budget_is_saved_and_printed_only_on_demand(encoder, tmp_path, capsys):
    options = {"masks": "auto", "tolerance": 0.5, "image_players": "3x3"}
    found = fixlip.explain(encoder, IMAGE, CAPTION, progress=True, **options)
    assert "image and 128 text masks (rounds: 1), " in capsys.readouterr().err
    assert fixlip.Explanation.load(found.save(tmp_path / "e.safetensors")).info == found.info
    fixlip.explain(encoder, IMAGE, CAPTION, progress=False, **options)
    assert capsys.readouterr().err == ""


def test_the_ends_are_the_models_own_logits(encoder):
    explanation = fixlip.explain(encoder, IMAGE, CAPTION, masks=(64, 64))
    assert explanation.grand_value == pytest.approx(encoder.logit(IMAGE, CAPTION), rel=1e-5)
    game = fixlip.Game(encoder.image(IMAGE), encoder.text(CAPTION))
    ends = torch.tensor([[False], [True]]).expand(2, game.n)
    assert game(ends).tolist() == pytest.approx(
        [explanation.empty_value, explanation.grand_value], rel=1e-5
    )


def test_what_determined_the_numbers_is_recorded(encoder, tmp_path):
    explanation = fixlip.explain(encoder, IMAGE, CAPTION, p=(0.4, 0.6), masks=(40, 30), seed=3)
    loaded = fixlip.Explanation.load(explanation.save(tmp_path / "pair.safetensors"))
    assert loaded.info == explanation.info and loaded.p == (0.4, 0.6)
    image, text, fit = (loaded.info[key] for key in ("image", "text", "fit"))
    assert text["caption"] == CAPTION and text["tokens"] == CAPTION.split()
    assert len(text["token_ids"]) == len(text["tokens"])
    assert image["model"] == text["model"] == encoder.info
    assert (image["masks"], text["masks"]) == (40, 30)
    assert image["seed"] != text["seed"]  # independent streams of one seed
    assert fit["scale"] == pytest.approx(encoder.logit_scale)
    assert loaded.players[-2:] == ("red", "arrow") and loaded.players[0] == "(0,0)"
    assert loaded.picture.shape == (48, 48, 3)


def test_the_same_seed_gives_the_same_bits(encoder):
    first, second, other = (
        fixlip.explain(encoder, IMAGE, CAPTION, masks=(50, 50), seed=s) for s in (1, 1, 2)
    )
    assert first.e2.tobytes() == second.e2.tobytes() and first.e0 == second.e0
    assert first.e2.tobytes() != other.e2.tobytes()


def test_results_do_not_depend_on_the_batch_size(encoder):
    small, large = (
        fixlip.explain(encoder, IMAGE, CAPTION, masks=64, batch_size=b) for b in (7, 66)
    )
    np.testing.assert_allclose(small.e2, large.e2, atol=1e-4)


@pytest.mark.parametrize("name", DEMOS)
def test_blocks_and_words_play_as_well(name):
    encoder = fixlip.load(name)
    explanation = fixlip.explain(
        encoder, IMAGE, CAPTION, image_players="3x3", text_players="words", masks=(16, 256)
    )
    if name != "demo-siglip-fine":
        assert explanation.info["image"]["sampling"] == "enumerated"
        assert explanation.n_image == 4
    assert np.isfinite(explanation.e2).all()
    assert explanation.on_grid(explanation.given("heart")).shape == tuple(encoder.image(IMAGE).grid)


def test_sides_of_two_models_do_not_pair():
    image = fixlip.sweep(fixlip.load("demo-clip").image(IMAGE), masks=8)
    text = fixlip.sweep(fixlip.load("demo-siglip").text(CAPTION), masks=8)
    with pytest.raises(ValueError, match=r"belongs to demo-clip .* to demo-siglip"):
        fixlip.solve(image, text)


def test_a_broken_checkpoint_is_named(encoder):
    weight = encoder.model.visual.ln_post.weight
    kept = weight.detach().clone()
    try:
        weight.data[0] = float("nan")
        with pytest.raises(ValueError, match=r"not finite|NaN"):
            fixlip.explain(encoder, IMAGE, CAPTION, masks=4)
    finally:
        weight.data.copy_(kept)


def test_two_images_explain_their_similarity(encoder):
    swept = fixlip.sweep(encoder.image(IMAGE), masks=64)
    explanation = fixlip.solve(swept, swept)
    np.testing.assert_allclose(explanation.cross, explanation.cross.T, atol=1e-9)
    assert explanation.grand_value == pytest.approx(
        encoder.logit_scale + encoder.logit_bias, rel=1e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 0}, "strictly between 0 and 1"),
        ({"p": (0.5, 1.0)}, "strictly between 0 and 1"),
        ({"masks": 0}, "number of masks"),
        ({"masks": (10, -1)}, "number of masks"),
        ({"order": 5}, "order must be"),
        ({"sampling": "sobol"}, "sampling must be"),
        ({"image_players": "7"}, "players"),
        ({"text_players": "letters"}, "players"),
        ({"p": (0.5, 0.5, 0.5)}, "one value or two"),
        ({"masks": (1, 2, 3)}, "one value or two"),
        ({"masks": "many"}, 'one or two numbers, or "auto"'),
        ({"tolerance": 0.1}, 'go with masks="auto"'),
        ({"max_masks": 100}, 'go with masks="auto"'),
        ({"masks": "auto", "tolerance": 0}, "strictly between 0 and 1"),
        ({"masks": "auto", "tolerance": 1.0}, "strictly between 0 and 1"),
        ({"masks": "auto", "tolerance": "5 %"}, "tolerance must be a number"),
        ({"masks": "auto", "max_masks": 100}, "148 or more"),
        ({"masks": "auto", "sampling": "distinct"}, "antithetic and independent only"),
        ({"masks": "auto", "order": 1}, "all image-text interactions"),
        ({"masks": "auto", "basis": "top"}, "all image-text interactions"),
    ],
)
def test_bad_options_are_refused(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        fixlip.explain(encoder, IMAGE, CAPTION, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"basis": "tpo"},
        {"ridge": -1},
        {"k": 0, "basis": "top"},
        {"scale": "big"},
        {"bias": np.nan},
        {"p": (0.5, 1.5)},
        {"masks": (100, 0)},
    ],
)
def test_bad_options_are_refused_before_the_encoder_runs(encoder, options, monkeypatch):
    monkeypatch.setattr("fixlip.pipeline.sweep", lambda *a, **k: pytest.fail("the encoder ran"))
    with pytest.raises(ValueError):
        fixlip.explain(encoder, IMAGE, CAPTION, **options)
