"""Which pairs studies are made on: the published selection, against a literal one."""

import pytest

import fixlip
from fixlip.data.selection import best_pairs, read


@pytest.fixture(scope="module")
def encoder():
    return fixlip.load("demo-clip", device="cpu")


def test_best_captions_of_enough_words_by_rank(encoder):
    examples = read("demo")[:12]
    found, ranked = best_pairs(encoder, examples, pairs=3, ranks=(1, 6), words=6)
    scores = []
    for example in examples:
        long = [text for text in example.captions if len(text.split()) >= 6]
        if long:
            logits = [encoder.logit(example.image, text) for text in long]
            scores.append((max(logits), example.id, long[logits.index(max(logits))]))
    scores.sort(reverse=True)
    assert len(ranked) == len(scores) > 6
    assert [(p.rank, p.id, p.caption) for p in found] == [
        (place, *scores[place][1:]) for place in (1, 3, 5)
    ]
    assert ranked.logit.tolist() == pytest.approx([score for score, *_ in scores], rel=1e-5)
    assert found[0].image.is_file()
    every, _ = best_pairs(encoder, examples, pairs=99, words=6)
    assert [pair.rank for pair in every] == list(range(len(ranked)))


def test_what_is_refused(encoder):
    with pytest.raises(ValueError, match="must be"):
        read("imagenet")
    with pytest.raises(ValueError, match="give the folder of your copy"):
        read("coco")
    examples = read("demo")[:2]
    with pytest.raises(ValueError, match="no ranks 2 to 4"):
        best_pairs(encoder, examples, pairs=1, ranks=(2, 5))
    with pytest.raises(ValueError, match="pairs must be a whole number of 1 or more, got 0"):
        best_pairs(encoder, examples, pairs=0)
    with pytest.raises(ValueError, match=r"ranks must be the first rank and .*, got \(3, 3\)"):
        best_pairs(encoder, examples, pairs=1, ranks=(3, 3))
