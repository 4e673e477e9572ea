"""Tests of fixlip.data.ranking against one forward pass per pair."""

import warnings

import numpy as np
import pytest
from PIL import Image

import fixlip
from fixlip.data.coco import read_coco
from fixlip.data.examples import Example
from fixlip.data.ranking import best_captions
from fixlip.paths import root


@pytest.fixture(scope="module", params=["demo-clip", "demo-siglip"])
def encoder(request):
    return fixlip.load(request.param, device="cpu")


def test_the_best_of_every_picture(encoder):
    """The definition: every caption of every picture through the model by itself."""
    examples = read_coco(root() / "data/scenes")[:12]
    ranked = best_captions(encoder, examples, batch_size=5)
    literal = []
    for example in examples:
        logits = [encoder.logit(example.image, caption) for caption in example.captions]
        literal.append((example.id, int(np.argmax(logits)), max(logits)))
    literal.sort(key=lambda row: -row[2])
    assert ranked["id"].tolist() == [row[0] for row in literal]
    assert ranked["caption"].tolist() == [row[1] for row in literal]
    assert np.allclose(ranked["logit"], [row[2] for row in literal], atol=1e-4)
    assert ranked["rank"].tolist() == list(range(12))
    assert ranked[3:5]["rank"].tolist() == [3, 4]  # a slice is a range of ranks


def test_work_is_done_once(encoder, monkeypatch):
    examples = read_coco(root() / "data/scenes")[:10]
    examples = [*examples, Example("again", examples[0].image, examples[0].captions)]
    seen = {"encode_image": [], "encode_text": []}
    for name, calls in seen.items():
        whole = getattr(encoder.model, name)

        def counting(batch, whole=whole, calls=calls, **options):
            calls.append(len(batch))
            return whole(batch, **options)

        monkeypatch.setattr(encoder.model, name, counting)
    ranked = best_captions(encoder, examples, batch_size=4)
    distinct = len({caption for example in examples for caption in example.captions})
    assert seen["encode_image"] == [4, 4, 3] and sum(seen["encode_text"]) == distinct
    assert max(seen["encode_text"]) <= 4 and len(seen["encode_text"]) == -(-distinct // 4)
    first = ranked.set_index("id").loc[[examples[0].id, "again"]]
    assert np.ptp(first["logit"]) < 1e-4 and first["caption"].nunique() == 1


def test_what_cannot_be_ranked_is_told(encoder, tmp_path):
    Image.new("L", (50, 40)).save(tmp_path / "grey.jpg")
    Image.new("CMYK", (50, 40)).save(tmp_path / "print.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    names = ("grey", "broken", "print", "absent")
    examples = [Example(name, tmp_path / f"{name}.jpg", ("star",)) for name in names]
    with pytest.warns(UserWarning) as told:
        ranked = best_captions(encoder, [*examples, Example("silent", tmp_path, ())])
    assert sorted(ranked["id"]) == ["grey", "print"] and np.isfinite(ranked["logit"]).all()
    messages = [str(warning.message) for warning in told]
    assert any("1 examples have no captions" in message for message in messages)
    assert any("2 pictures cannot be read" in m and "broken.jpg" in m for m in messages)


def test_captions_that_the_model_cannot_read_are_left_out(encoder, tmp_path):
    Image.new("L", (50, 40), 90).save(tmp_path / "grey.jpg")
    texts = ("\u200b", "a red star", " ", "a blue ring")  # nothing is left of a zero-width space
    examples = [Example("1", tmp_path / "grey.jpg", texts)]
    examples.append(Example("2", tmp_path / "grey.jpg", ("\u200b",)))
    with pytest.warns(UserWarning, match=r"2 captions cannot be read .* the first: .*u200b"):
        (row,) = best_captions(encoder, examples).itertuples()
    readable = best_captions(encoder, [Example("1", tmp_path / "grey.jpg", texts[1::2])])
    assert row.id == "1" and row.caption == 2 * readable.caption[0] + 1
    assert row.logit == pytest.approx(readable.logit[0], abs=1e-4)


def test_nothing_to_rank(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = best_captions(encoder, [])
    assert empty.columns.tolist() == ["id", "caption", "logit", "rank"] and empty.empty
    with pytest.raises(ValueError, match="batch_size must be a whole number of 1 or more, got 0"):
        best_captions(encoder, [], batch_size=0)
