"""Tests of fixlip.encoders.captions: every kind of tokenizer, and captions that do not fit it."""

import warnings

import numpy as np
import open_clip
import pytest
import torch

import fixlip
from fixlip.encoders import players
from fixlip.encoders.captions import CaptionReader

CLIP = open_clip.SimpleTokenizer()


def reader(tokenizer, length=77, vocabulary=49408):
    return CaptionReader(tokenizer, length=length, vocabulary=vocabulary)


def hugging_face(folder, length, **options):
    return open_clip.tokenizer.HFTokenizer(str(folder), context_length=length, **options)


def names(caption):
    return players.tokens(caption.pieces).names, players.words(caption.pieces).names


def test_openai_tokenizer():
    read = reader(CLIP).read("A dog's starfishy  ball, twice!")
    assert names(read) == (
        ("a", "dog", "'s", "star", "fishy", "ball", ",", "twice", "!"),
        ("a", "dog", "'s", "starfishy", "ball", ",", "twice", "!"),
    )
    assert read.ids[0] == CLIP.sot_token_id and read.ids[read.stop] == CLIP.eot_token_id
    assert list(read.ids[read.start : read.stop]) == CLIP.encode("A dog's starfishy  ball, twice!")
    assert read.cut is None and len(read.ids) == 77


@pytest.mark.parametrize("text", ["日本語", "Привет", "a 🦩 here", "é", "naïve 🏳️‍🌈", "!!!🙂"])
def test_text_beyond_ascii_is_readable(text):
    read = reader(CLIP).read(text)
    singles, whole = names(read)
    assert len(singles) == len(CLIP.encode(text)) and all(singles) and all(whole)
    # words are whole characters again, as far as the tokenizer's own cleaning keeps them
    assert "".join(whole) == CLIP.decode(CLIP.encode(text)).replace(" ", "")
    assert not any("\udc80" <= char <= "\udcff" for name in singles + whole for char in name)


def test_bytes_of_one_character_have_readable_names():
    singles, whole = names(reader(CLIP).read("𓀀"))
    assert len(singles) > 1 and whole == ("𓀀",)
    assert bytes.fromhex("".join(name.strip("<>") for name in singles)).decode() == "𓀀"


@pytest.mark.parametrize(
    "kind,expected_start,after",
    [("siglip1", 0, [1]), ("siglip2", 0, [1, 0]), ("clip", 1, None), ("demo-clip", 1, None)],
)
def test_which_tokens_are_the_captions_own(tokenizer_folder, kind, expected_start, after):
    tokenizer = hugging_face(tokenizer_folder(kind, 16), 16)
    read = reader(tokenizer, 16).read("a red star")
    assert (read.start, read.stop - read.start) == (expected_start, 3)
    assert names(read) == (("a", "red", "star"),) * 2
    if after:
        assert list(read.ids[read.stop :]) == after + after[-1:] * (16 - read.stop - len(after))


@pytest.mark.parametrize("kind", ["siglip1", "siglip2", "clip"])
def test_subwords_make_words(tokenizer_folder, kind):
    tokenizer = hugging_face(tokenizer_folder(kind, 16), 16)
    singles, whole = names(reader(tokenizer, 16).read("red starfish on dog"))
    assert whole == ("red", "starfish", "on", "dog")
    assert singles == ("red", "star", "fish", "on", "dog")


def test_siglip_cleaning_drops_punctuation(tokenizer_folder):
    folder = tokenizer_folder("siglip2", 16)
    tokenizer = hugging_face(folder, 16, clean="canonicalize")
    assert names(reader(tokenizer, 16).read("A red star!"))[1] == ("a", "red", "star")
    plain = hugging_face(folder, 16)
    assert names(reader(plain, 16).read("a red star!"))[1] == ("a", "red", "star", "!")
    with pytest.raises(ValueError, match="leaves nothing of the caption '!!!'"):
        reader(tokenizer, 16).read("!!!")


def test_byte_fallback(tokenizer_folder):
    tokenizer = hugging_face(tokenizer_folder("siglip2", 16), 16)
    singles, whole = names(reader(tokenizer, 16).read("a 🙂 dog"))
    assert "<F0>" in singles and "🙂" in whole


def test_unknown_words_are_named(tokenizer_folder):
    tokenizer = hugging_face(tokenizer_folder("demo-clip", 16), 16)
    with pytest.warns(UserWarning, match="does not know 'purplish', 'thing' of the caption"):
        read = reader(tokenizer, 16).read("a purplish red thing")
    assert names(read)[1] == ("a", "<unk>", "red", "<unk>")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader(tokenizer, 16).read("a red star")


def test_a_long_caption_is_cut_as_the_model_does():
    caption = " ".join(["dog"] * 74 + ["starfishy", "and", "more"])
    with pytest.warns(UserWarning, match="does not see its end: 'fishy and more'"):
        read = reader(CLIP).read(caption)
    assert read.cut == "fishy and more"  # the piece of the word that is cut in two, too
    assert read.stop - read.start == 75 and read.pieces[-1] == " star"
    assert list(read.ids) == CLIP([caption])[0].tolist()


@pytest.mark.parametrize("kind", ["siglip1", "siglip2", "clip", "demo-clip", "demo-siglip"])
def test_cut_and_exact_fit_of_other_tokenizers(tokenizer_folder, kind):
    tokenizer = hugging_face(tokenizer_folder(kind, 8), 8)
    room = 6 if kind.endswith("clip") and "sig" not in kind else 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reader(tokenizer, 8).read(" ".join(["red"] * room)).cut is None
    with pytest.warns(UserWarning, match="does not see its end: 'star'"):
        read = reader(tokenizer, 8).read(" ".join(["red"] * room + ["star"]))
    assert read.cut == "star" and len(read.pieces) == room


def ids_only(texts):
    """A tokenizer without vocabulary: up to 8 letters as numbers between 1 and 2, then 0."""
    rows = [[1, *(3 + ord(letter) % 30 for letter in text[:8]), 2] for text in texts]
    return torch.tensor([row + [0] * (10 - len(row)) for row in rows])


def test_a_function_without_vocabulary():
    read = reader(ids_only, 10, 40).read("ab")
    assert names(read)[0] == (f"#{3 + ord('a') % 30}", f"#{3 + ord('b') % 30}")
    with pytest.warns(UserWarning, match="it cannot be known whether its end was cut"):
        assert reader(ids_only, 10, 40).read("abcdefghijkl").cut is None


def test_a_function_that_decodes():
    class Letters:
        def __call__(self, texts):
            return [[1, *map(ord, texts[0]), 2] + [0] * (6 - len(texts[0]))]

        def decode(self, ids):
            return "".join(map(chr, ids))

    assert names(reader(Letters(), 8, 300).read("ab"))[0] == ("a", "b")


@pytest.mark.parametrize("caption", ["", "   ", "\n", "\u00a0\u3000\u2028"])
def test_empty_captions(caption):
    with pytest.raises(ValueError, match="the caption is empty"):
        reader(CLIP).read(caption)


@pytest.mark.parametrize("kind", ["clip", "siglip1", "siglip2", "demo-clip"])
def test_strings_of_numpy_and_broken_characters_are_read(tokenizer_folder, kind):
    tokenizer = hugging_face(tokenizer_folder(kind, 16), 16)
    plain = reader(tokenizer, 16).read("a red star")
    for caption in (
        np.str_("a red star"),
        "a red\nstar",
        "a\u00a0red \x00star",
        "\ufeffa red star",
    ):
        assert reader(tokenizer, 16).read(caption) == plain
    with pytest.warns(UserWarning, match="does not see its end"):
        broken = reader(CLIP).read("\ud800 " + "dog " * 200)
    assert len(broken.pieces) == 75 and broken.cut.count("dog") == 200 - 74


def test_bad_captions_and_tokenizers(tokenizer_folder):
    for caption in (["a dog"], b"a dog", None, float("nan"), np.array("a dog"), 3):
        kind = type(caption).__name__
        with pytest.raises(TypeError, match=f"must be one string; given {kind}: .* give one"):
            reader(CLIP).read(caption)
    with pytest.raises(ValueError, match="gives 77 token ids, but the text tower reads 64"):
        reader(CLIP, 64)
    with pytest.raises(ValueError, match=r"gives the token id \d+, but .* only 0 to 99"):
        reader(CLIP, vocabulary=100)
    with pytest.raises(ValueError, match="the same token ids"):
        reader(lambda texts: [[0, 0]], 2)
    inner = hugging_face(tokenizer_folder("clip", 16), 16).tokenizer
    with pytest.raises(TypeError, match="gives a dictionary"):
        reader(inner, 16)


@pytest.mark.parametrize("model", ["demo-clip", "demo-siglip"])
@pytest.mark.parametrize("mark", ["<end_of_text>", "<pad>"])
def test_marks_of_the_tokenizer_are_no_words(model, mark):
    """They became players, and a model that reads at its first end token saw nothing behind it."""
    with pytest.raises(ValueError, match="as one of its own marks"):
        fixlip.load(model).text(f"a heart {mark} star")
    assert fixlip.load(model).text("a heart star").n == 3
