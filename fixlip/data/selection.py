"""The pairs of a data set that a study uses: images with their best captions, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from fixlip.checks import integer, one_of
from fixlip.data.coco import read_coco
from fixlip.data.examples import Example
from fixlip.data.flickr import read_flickr30k
from fixlip.data.ranking import best_captions
from fixlip.files import user_path
from fixlip.paths import root

if TYPE_CHECKING:
    from fixlip.encoders import Encoder


DATASETS = ("demo", "coco", "flickr30k")


class Pair(NamedTuple):
    """An image and its best caption by a model's score."""

    id: str  # the data set's name of the image
    rank: int  # place of the image by the score of that caption, from 0
    image: Path
    caption: str


def read(dataset: str, folder: str | Path = "") -> list[Example]:
    """Read a data set by its name.

    Parameters
    ----------
    dataset : {"demo", "coco", "flickr30k"}
        The scenes shipped with the repository, COCO (by Karpathy's split where the folder has
        ``dataset_coco.json``), or Flickr30k Entities.
    folder : str or pathlib.Path
        Of "coco" and "flickr30k".

    Examples
    --------
    >>> len(read("demo"))
    300
    """
    if one_of("dataset", dataset, DATASETS) == "demo":
        return read_coco(root() / "data/scenes")
    if not str(folder):
        raise ValueError(f"{dataset} is not part of fixlip: give the folder of your copy")
    if dataset == "flickr30k":
        return read_flickr30k(folder)
    karpathy = user_path(folder) / "dataset_coco.json"
    return read_coco(folder, karpathy=karpathy if karpathy.is_file() else None)


def best_pairs(
    encoder: Encoder,
    examples: Sequence[Example],
    *,
    pairs: int,
    ranks: Sequence[int] = (0, 1000),
    words: int = 1,
) -> tuple[list[Pair], pd.DataFrame]:
    """Give each image its best caption, rank the images by that score, and take some of the ranks.

    Returns these pairs, and the whole ranking as `fixlip.data.ranking.best_captions` gives it.
    Raises ValueError where no image is left.

    Parameters
    ----------
    encoder : Encoder
    examples : sequence of Example
    pairs, words : int
        How many, evenly spaced over the ranks (all where there are no more); the fewest words of a
        caption that takes part.
    ranks : (int, int)
        First rank, and the one after the last.

    References
    ----------
    The selection of the insertion and deletion of Baniecki et al., NeurIPS 2025: ranks 0 to 999 of
    COCO's test images for CLIP, 900 to 999 for SigLIP 2.
    """
    integer("pairs", pairs)
    if len(ranks) != 2 or not 0 <= ranks[0] < ranks[1]:
        raise ValueError(
            "ranks must be the first rank and the one after the last, such as (0, 1000), "
            f"got {ranks}"
        )
    known = {}
    for example in examples:
        long = tuple(text for text in example.captions if len(text.split()) >= words)
        if long:
            known[example.id] = replace(example, captions=long, mentions=())
    ranked = best_captions(encoder, [*known.values()], progress=False)
    first, last = ranks[0], min(ranks[1], len(ranked))
    if first >= last:
        raise ValueError(
            f"{len(ranked)} of {len(examples)} images have a caption of {words} words or more: "
            f"there are no ranks {ranks[0]} to {ranks[1] - 1}"
        )
    places = np.unique(np.linspace(first, last - 1, pairs).round().astype(int))
    rows = ranked.iloc[places].itertuples()
    found = [Pair(r.id, r.rank, known[r.id].image, known[r.id].captions[r.caption]) for r in rows]
    return found, ranked
