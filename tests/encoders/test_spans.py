"""Boxes on images and stretches of captions as the players inside them."""

import re

import numpy as np
import open_clip
import pytest
from tiny import tiny_config

import fixlip
from fixlip.encoders import Encoder, patches_in, players_at
from fixlip.paths import root

IMAGE = root() / "data/scenes/val/000000000209.png"
CAPTION = "a blue heart left of a red arrow"


@pytest.fixture(scope="module")
def encoder():
    return fixlip.load("demo-clip", device="cpu")


def test_a_box_counts_patches_by_centre_or_by_overlap(encoder):
    side = encoder.image(IMAGE)  # 48 x 48 pixels, 6 x 6 patches of 8: nothing is resized
    box = [5, 10, 14, 20]  # x from 5 to 19, y from 10 to 30
    centre, overlap = np.zeros(36), np.zeros(36)
    for row in range(6):
        for column in range(6):
            x, y = 8 * column, 8 * row
            centre[6 * row + column] = 5 <= x + 4 < 19 and 10 <= y + 4 < 30
            wide = max(0, min(19, x + 8) - max(5, x))
            high = max(0, min(30, y + 8) - max(10, y))
            overlap[6 * row + column] = wide * high / 64
    assert patches_in(side, box).tolist() == centre.tolist()
    np.testing.assert_allclose(patches_in(side, box, rule="overlap"), overlap, atol=1e-6)


@pytest.mark.parametrize("name", ["demo-clip", "demo-siglip"])
def test_boxes_go_through_the_models_resizing_and_cropping(name, noise):
    encoder = fixlip.load(name, device="cpu")
    side = encoder.image(noise)  # 56 wide, 40 high
    size, patch = side.picture.shape[0], side.patch[0]
    scales = (size / 40, size / 40) if side.view.crops else (size / 56, size / 40)
    shift = ((56 * scales[0] - size) / 2, 0)
    rng = np.random.default_rng(1)
    compared = 0
    for _ in range(30):
        x, y = rng.uniform(0, 30), rng.uniform(0, 20)
        w, h = rng.uniform(6, 24), rng.uniform(6, 18)
        inside = patches_in(side, [x, y, w, h]).reshape(side.grid)
        for (row, column), value in np.ndenumerate(inside):
            # the patch's centre in the original image
            u = (patch * (column + 0.5) + shift[0]) / scales[0]
            v = (patch * (row + 0.5) + shift[1]) / scales[1]
            if min(abs(u - x), abs(u - x - w), abs(v - y), abs(v - y - h)) < 1.5:
                continue  # too near an edge for whole pixels to tell
            assert value == (x <= u < x + w and y <= v < y + h)
            compared += 1
    assert compared > 300


def test_of_a_group_the_share_of_its_patches_counts(encoder):
    side = encoder.image(IMAGE, players="2x2")
    weights = patches_in(side, [0, 0, 24, 16])  # three patches wide, two high
    assert weights.tolist() == [1, 0.5, 0, 0, 0, 0, 0, 0, 0]


def test_a_box_without_a_patch_warns(encoder, noise):
    with pytest.warns(UserWarning, match="no patch counts"):
        assert not patches_in(encoder.image(IMAGE), [0, 0, 2, 2]).any()
    with pytest.warns(UserWarning, match="no patch counts"):  # cropped away
        assert not patches_in(encoder.image(noise), [0, 0, 6, 40]).any()


@pytest.mark.parametrize(
    "box", [[1, 2, 3], [0, 0, np.inf, 4], [0, 0, np.nan, 4], "box", [0, 0, 4, -1]]
)
def test_bad_boxes_are_refused(encoder, box):
    with pytest.raises(ValueError, match="a box is"):
        patches_in(encoder.image(IMAGE), box)


def test_boxes_outside_captions_and_unknown_rules_are_refused(encoder):
    side = encoder.image(IMAGE)
    for box in ([50, 0, 10, 10], [4, 4, 0, 9]):
        with pytest.raises(ValueError, match="48 wide and 48 high"):
            patches_in(side, box)
    with pytest.raises(ValueError, match='"centre" or "overlap", got \'any\''):
        patches_in(side, [0, 0, 9, 9], rule="any")
    with pytest.raises(ValueError, match="needs the side of an image"):
        patches_in(encoder.text(CAPTION), [0, 0, 9, 9])


@pytest.fixture
def reader(tiny_model, tokenizer_folder):
    """Make a tiny encoder with a tokenizer of some kind."""

    def build(kind, length=64):
        sizes = {"context_length": length, "width": 16, "heads": 2, "layers": 1}
        config = tiny_config("clip" if kind == "clip" else "siglip")
        config["text_cfg"] |= sizes | {"vocab_size": 2000}
        folder = str(tokenizer_folder(kind, length))
        tokenizer = open_clip.tokenizer.HFTokenizer(folder, context_length=length)
        return Encoder(tiny_model(kind, config), tokenizer, name="tiny")

    return build


@pytest.mark.parametrize(
    "kind, caption",
    [
        ("clip", "The RED starfish, left of Dog"),
        ("siglip1", "the red starfish left of dog"),
        ("siglip2", "The red starfish, left of Dog"),
    ],
)
@pytest.mark.parametrize("players", ["tokens", "words"])
def test_players_of_a_stretch(reader, kind, caption, players):
    side = reader(kind).text(caption, players=players)
    for words in ("starfish", "red starfish", "dog", "left of"):
        start = caption.lower().index(words)
        weights = players_at(side, start, start + len(words))
        said = "".join(side.names[i] for i in np.flatnonzero(weights))
        assert said.lower() == words.replace(" ", "") and set(weights) == {0.0, 1.0}
    fish = caption.index("fish")
    part = dict(zip(side.names, players_at(side, fish, fish + 4), strict=True))
    if players == "tokens":
        assert part.pop("fish") == 1 and not any(part.values())
    else:
        assert part.pop("starfish") == 0.5 and not any(part.values())


def test_tokens_without_a_name(reader):
    """Unknown words and broken characters stand for what lies between their neighbours."""
    with pytest.warns(UserWarning, match="does not know 'Dog'"):
        side = reader("siglip1").text("red Dog on ball")
    weights = players_at(side, 4, 7)
    assert [side.names[i] for i in np.flatnonzero(weights)] == ["<unk>", "o", "g"]
    side = reader("clip").text("dog \N{GRINNING FACE} é red")
    (red,) = np.flatnonzero(players_at(side, 8, 11))
    assert side.names[red] == "red" and any("<" in name for name in side.names)
    letter = players_at(side, 6, 7)  # its two bytes
    assert letter.any() and not letter[red]


def test_stretches_that_are_not_there(encoder):
    side = encoder.text("a red star and a ring")
    with pytest.warns(UserWarning, match="no player stands for ' '"):
        assert not players_at(side, 1, 2).any()
    with pytest.raises(ValueError, match="characters 3 to 30 are not in the caption"):
        players_at(side, 3, 30)
    with pytest.warns(UserWarning, match="longer than"):
        cut = encoder.text("a red star " * 40)
    with pytest.warns(UserWarning, match="no player stands for 'star'"):
        assert not players_at(cut, len("a red star " * 39) + 6, len("a red star " * 39) + 10).any()


@pytest.fixture(scope="module")
def clip(tiny_model):
    """A tiny encoder with CLIP's own tokenizer, which repairs, unescapes and composes first."""
    config = tiny_config("clip")
    config["text_cfg"] |= {"context_length": 77, "vocab_size": 49408, "width": 16, "layers": 1}
    return Encoder(tiny_model("clip", config), open_clip.SimpleTokenizer(), name="tiny")


def said(side, words):
    """The names of the players of some words of the caption, the last time that they occur."""
    start = side.info["caption"].rindex(words)
    weights = players_at(side, start, start + len(words))
    return [side.names[i] for i in np.flatnonzero(weights)]


@pytest.mark.parametrize(
    "caption, words, names",
    [
        ("cats &amp; dogs", "dogs", ["dogs"]),
        ("cats &amp; dogs", "&amp;", ["&"]),
        ("cats &amp;amp; ampere", "cats", ["cats"]),  # a part of it begins like the next word
        ("cats &amp;amp; ampere", "ampere", ["amp", "ere"]),
        ("cafe\u0301 dog", "cafe\u0301", ["café"]),
        ("cafe\u0301 dog", "e", ["café"]),
        ("\u201ccurly\u201d dog\u2019s", "curly", ["curly"]),
        ("\u201ccurly\u201d dog\u2019s", "dog\u2019s", ["dog", "'s"]),
        ("\u201ccurly\u201d dog\u2019s", "\u201d", ['"']),
        ("cost $5 and $ dog", "$5", ["5"]),
        ("cost $5 and $ dog", "$", ["$"]),
        ("red\u00a0dog\nball", "dog", ["dog"]),
        ("\uff26\uff55\uff4c\uff4c dog", "\uff26\uff55\uff4c\uff4c", ["full"]),
        ("\ufb01sh dog", "\ufb01sh", ["fish"]),
        ("sch\u00c3\u00b6n dog", "sch\u00c3\u00b6n", ["sch", "ö", "n"]),  # read as Latin-1 once
        ("\x1b[36mred\x1b[0m dog", "dog", ["dog"]),
        ("\ud800 \x00 dog", "dog", ["dog"]),
        ("soft\u00adly x\u200bdog", "dog", ["dog"]),
    ],
)
def test_stretches_of_captions_that_the_tokenizer_cleans(clip, caption, words, names):
    assert said(clip.text(caption), words) == names


SEGMENTS = [
    *("cats", "&amp;", "&hearts;", "$", "cafe\u0301", "dog\u2019s", "straße", "İstanbul", "½"),
    *("שלום", "नमस्ते", "สวัสดี", "한국", "日本", "\u2026", "\uff26\uff55\uff4c", "\ufb01sh", "naïve"),
    *("👨\u200d👩\u200d👧", "🏳️\u200d🌈", "👍🏽", "🇩🇪", "🦩", "𓀀", "starfishy"),
]


@pytest.mark.parametrize("players", ["tokens", "words"])
def test_every_stretch_has_the_tokens_that_it_has_by_itself(clip, players):
    """The definition, since CLIP's tokenizer reads words between spaces one by one."""
    rng = np.random.default_rng(0)
    alone = {text: clip.text(text, players=players).names for text in SEGMENTS}
    for _ in range(40):
        chosen = rng.choice(SEGMENTS, 7).tolist()
        gaps = rng.choice([" ", "\u00a0", "\n", " \t "], 6).tolist()
        caption = "".join(text + gap for text, gap in zip(chosen, [*gaps, ""], strict=True))
        side = clip.text(caption, players=players)
        assert list(side.names) == [name for text in chosen for name in alone[text]]
        start = first = 0
        for text, gap in zip(chosen, [*gaps, ""], strict=True):
            weights = players_at(side, start, start + len(text))
            last = first + len(alone[text])
            assert np.flatnonzero(weights).tolist() == [*range(first, last)], (text, caption)
            start, first = start + len(text) + len(gap), last


def test_stretches_of_what_siglip_leaves_of_a_caption(tiny_model, tokenizer_folder):
    """It drops signs and makes "_" a space: those of a stretch have no player."""
    config = tiny_config("siglip")
    config["text_cfg"] |= {"context_length": 32, "width": 16, "layers": 1, "vocab_size": 2000}
    tokenizer = open_clip.tokenizer.HFTokenizer(
        str(tokenizer_folder("siglip2", 32)), context_length=32, clean="canonicalize"
    )
    side = Encoder(tiny_model("siglip", config), tokenizer, name="tiny").text(
        "A $ RED_star, left-of &amp; don't Dog!"
    )
    assert said(side, "RED") == ["red"] and said(side, "star,") == ["star"]
    assert "".join(said(side, "left-of")) == "leftof" and "".join(said(side, "don't")) == "dont"
    assert said(side, "Dog!") == ["dog"]
    for sign in ("$", ",", "&amp;", "!"):
        with pytest.warns(UserWarning, match=f"no player stands for {re.escape(repr(sign))}"):
            assert said(side, sign) == []


def test_unknown_words_side_by_side(encoder):
    with pytest.warns(UserWarning, match="does not know"):
        side = encoder.text("a purplish shiny zebra and some dog")
    for word, place in (("purplish", 1), ("shiny", 2), ("zebra", 3), ("and", 4), ("dog", 6)):
        start = side.info["caption"].index(word)
        assert np.flatnonzero(players_at(side, start, start + len(word))).tolist() == [place]


@pytest.mark.parametrize(
    "caption, tokens",
    [
        ("dog dog", ["log", "log"]),
        ("dog", ["dog", "s"]),
        ("o" * 80 + "x", ["<unk>", "o"] * 20),  # trying all ways to read it would not end
    ],
)
def test_tokens_that_do_not_spell_the_caption_are_told_with_the_stretch(
    tiny_model, caption, tokens
):
    config = tiny_config("clip")
    config["text_cfg"] |= {"context_length": 45}

    def another(texts):  # whatever the caption, but the empty one and those that the reader tries
        words = tokens if texts == [caption] else texts[0].split()
        ids = [1, *(another.encoder[word] for word in words), 599]
        return [ids + [0] * (45 - len(ids))]

    known = dict.fromkeys(["<s>", "a", *tokens])
    another.encoder = {text: i for i, text in enumerate(known, start=1)} | {"</s>": 599}
    side = Encoder(tiny_model("clip", config), another, name="tiny").text(caption)
    assert side.n == len(tokens) and len(fixlip.sweep(side, masks=4).embeddings) == 4
    message = f"^{caption[:3]!r} cannot be placed, .* do not spell the caption {caption!r}; give"
    with pytest.raises(ValueError, match=message):
        players_at(side, 0, 3)
