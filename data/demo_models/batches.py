"""Training batches: rendered scenes, true captions, hard negative captions, and exact truth.

A batch is a function of (seed, step) alone, so a resumed run sees exactly what an uninterrupted one
sees, and no data set needs to be stored.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from generate import relations, sample_scene

from fixlip.demo.drawing import COLOURS, IMAGE_SIZE, SHAPES
from fixlip.demo.grammar import INVERSE, Caption
from fixlip.demo.scenes import COMBINATIONS, GRID, HELD_OUT, Scene, holds
from fixlip.demo.tokenizers import END, PAD, START, UNKNOWN, vocabulary

TRUE, FALSE, UNDECIDED = 1, 0, -1

# What a (possibly incomplete) phrase can ask for: a combination, a shape, a colour.
_FEATURES = {
    feature: i
    for i, feature in enumerate(
        [*COMBINATIONS, *((None, s) for s in SHAPES), *((c, None) for c in COLOURS)]
    )
}
_ATTRIBUTES = (*SHAPES, *COLOURS)
_HELD_OUT = frozenset(HELD_OUT)
_RELATIONS = tuple(INVERSE)
_COLOURS = tuple(COLOURS)


@dataclass(frozen=True)
class Batch:
    """B images, C different captions, and the truth of every caption about every image."""

    images: torch.Tensor  # (B, 3, 48, 48) float32, normalised to [-1, 1]
    ids: torch.Tensor  # (C, L) int64
    keep: torch.Tensor  # (C, L) bool: False = hidden token
    truth: torch.Tensor  # (B, C) int8: TRUE, FALSE or UNDECIDED
    own: torch.Tensor  # (P, 2) int64: (image, caption drawn for it)
    places: torch.Tensor  # (B, 18, 2) float32: see `places_of`
    orders: torch.Tensor  # (R, 5) int64: see `orders_of`


def make_batch(
    seed: int,
    step: int,
    *,
    images: int,
    kind: str,
    length: int,
    grid: int = GRID,
    stage: str = "binding",
    masking: bool = False,
) -> Batch:
    """Draw the batch of one training step.

    Parameters
    ----------
    seed, step : int
        They alone decide what is drawn.
    images : int
        Number of images B; about a quarter of them are *twins*: another image of the batch with
        its colours (or, to learn relations, its places) permuted among the objects.
    kind : {"clip", "siglip"}
        Which vocabulary.
    length : int
        Context length L.
    grid : int
        Patches per side of the model, for `masking`.
    stage : {"singles", "binding", "relations"}
        The curriculum: scenes of one object; of one to four; the same with more relations.
    masking : bool
        Also zero random patches and hide random tokens (the end of the curriculum).
    """
    rng = np.random.default_rng([seed, step])
    if stage not in ("singles", "binding", "relations"):
        raise ValueError(f"unknown stage {stage!r}: expected 'singles', 'binding' or 'relations'")
    scenes = _scenes(rng, images, stage)
    columns: dict[Caption, int] = {}
    own = []
    for i, scene in enumerate(scenes):
        for caption in _true_captions(rng, scene, stage):
            own.append((i, columns.setdefault(caption, len(columns))))
            for negative in _negatives(rng, caption):
                if not any(phrase in _HELD_OUT for phrase in negative.phrases):
                    columns.setdefault(negative, len(columns))
    pixels = np.stack([scene.image() for scene in scenes])  # (B, 48, 48, 3)
    pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    if masking:
        pixels *= torch.from_numpy(_patch_masks(rng, images, grid))
    ids, keep, kept = _encode(rng, list(columns), kind, length, masking)
    truth = truth_matrix(scenes, list(columns), kept)
    pairs = np.array(own)
    truth[pairs[:, 0], pairs[:, 1]] = TRUE  # hiding a token cannot make a caption's own image false
    return Batch(
        pixels.contiguous(),
        torch.from_numpy(ids),
        torch.from_numpy(keep),
        torch.from_numpy(truth),
        torch.from_numpy(pairs),
        torch.from_numpy(places_of(scenes)),
        torch.tensor(orders_of(list(columns), kept), dtype=torch.int64).view(-1, 5),
    )


def _scenes(rng: np.random.Generator, images: int, stage: str) -> list[Scene]:
    if stage == "singles":
        return [sample_scene(rng, count=1) for _ in range(images)]
    scenes: list[Scene] = []
    while len(scenes) < images:
        draw = rng.random()
        if draw < 0.75:
            count = int(np.searchsorted((0.15, 0.50, 0.65), draw, side="right")) + 1
            scene = sample_scene(rng, count=count)
        else:
            scene = sample_scene(rng, layout="mosaic")
        scenes.append(scene)
        if len(scene.things) > 1 and len(scenes) < images and rng.random() < 0.4:
            replaced = stage == "relations" and rng.random() < 0.6
            twin = _moved_twin(rng, scene) if replaced else _recoloured_twin(rng, scene)
            if twin is not None:
                scenes.append(twin)
    return scenes


def _moved_twin(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene with two of its objects in each other's place."""
    things = list(scene.things)
    i, j = rng.choice(len(things), 2, replace=False)
    a, b = things[i], things[j]
    things[i] = replace(b, colour=a.colour, shape=a.shape)
    things[j] = replace(a, colour=b.colour, shape=b.shape)
    return Scene(tuple(things), int(rng.integers(2**62)))


def _recoloured_twin(rng: np.random.Generator, scene: Scene) -> Scene | None:
    """The scene with its colours permuted, if a few draws find another allowed one."""
    before = {(t.colour, t.shape) for t in scene.things}
    for _ in range(4):
        order = rng.permutation(len(scene.things))
        colours = [scene.things[i].colour for i in order]
        things = [replace(t, colour=c) for t, c in zip(scene.things, colours, strict=True)]
        twin = Scene(tuple(things), int(rng.integers(2**62)))
        after = {(t.colour, t.shape) for t in twin.things}
        if len(after) == len(before) and after != before and not after & _HELD_OUT:
            return twin
    return None


def _true_captions(rng: np.random.Generator, scene: Scene, stage: str) -> list[Caption]:
    """One or two captions that are true of the scene."""
    things = [scene.things[i] for i in rng.permutation(len(scene.things))]
    full = tuple((t.colour, t.shape) for t in things)
    names = tuple((None, t.shape) for t in things)
    if len(things) == 1:
        draw = rng.random()
        if draw < 0.7:
            return [Caption(full)]
        return [Caption(names, bare=draw < 0.9)]
    captions = [Caption(full[: rng.integers(1, len(full) + 1)])]
    draw = rng.random()
    if draw < (0.8 if stage == "relations" else 0.5):
        related = relations(scene)
        if related:
            caption = related[rng.integers(len(related))]
            (_, first), (_, second) = caption.phrases
            if stage == "relations" and first != second and rng.random() < 0.5:
                caption = replace(caption, phrases=((None, first), (None, second)))
            captions.append(caption)
    elif draw < 0.7:
        count = rng.integers(1, len(names) + 1)
        captions.append(Caption(tuple(dict.fromkeys(names[:count])), bare=draw < 0.65))
    return captions


def _negatives(rng: np.random.Generator, caption: Caption) -> list[Caption]:
    """Captions close to a true one, nearly always false; the truth matrix has the last word."""
    phrases = caption.phrases
    negatives = []
    if caption.relation:
        negatives.append(replace(caption, relation=INVERSE[caption.relation]))
        draw = rng.random()
        if draw < 0.3:
            negatives.append(replace(caption, phrases=phrases[::-1]))
        elif draw < 0.6:
            negatives.append(replace(caption, relation=_RELATIONS[rng.integers(4)]))
    if len(phrases) > 1 and phrases[0][0] is not None:
        i, j = rng.choice(len(phrases), 2, replace=False)
        swapped = list(phrases)
        swapped[i], swapped[j] = (phrases[j][0], phrases[i][1]), (phrases[i][0], phrases[j][1])
        if len(set(swapped)) == len(swapped):
            negatives.append(replace(caption, phrases=tuple(swapped)))
    i = int(rng.integers(len(phrases)))
    colour, shape = phrases[i]
    if colour is not None and rng.random() < 0.4:
        phrase = (_COLOURS[rng.integers(len(_COLOURS))], shape)
    else:
        phrase = (colour, SHAPES[rng.integers(len(SHAPES))])
    if phrase not in phrases:
        negatives.append(replace(caption, phrases=(*phrases[:i], phrase, *phrases[i + 1 :])))
    return negatives


def _patch_masks(rng: np.random.Generator, images: int, grid: int) -> np.ndarray:
    """(B, 1, 48, 48) float32: zero on patches hidden at a random rate in 60 % of the images."""
    rate = rng.uniform(0, 0.7, size=images) * (rng.random(images) < 0.6)
    keep = rng.random((images, grid, grid)) >= rate[:, None, None]
    keep = keep.repeat(IMAGE_SIZE // grid, axis=1).repeat(IMAGE_SIZE // grid, axis=2)
    return keep[:, None].astype(np.float32)


def _encode(rng, captions: list[Caption], kind: str, length: int, masking: bool):
    """Ids (C, L), visible tokens (C, L), and per caption which of its words are still readable."""
    table = vocabulary(kind)
    offset = int(kind == "clip")  # the start token
    ids = np.full((len(captions), length), table[PAD], dtype=np.int64)
    keep = np.ones((len(captions), length), dtype=bool)
    if offset:
        ids[:, 0] = table[START]
    kept = []
    for row, caption in enumerate(captions):
        words = str(caption).split()
        end = offset + len(words)
        ids[row, offset:end] = [table[word] for word in words]
        ids[row, end] = table[END]
        readable = np.ones(len(words), dtype=bool)
        if masking and rng.random() < 0.35:
            readable = rng.random(len(words)) >= rng.uniform(0, 0.6)
            if rng.random() < 0.2:  # words that the vocabulary lacks say nothing: the same truth
                ids[row, offset:end][~readable] = table[UNKNOWN]
            else:
                keep[row, offset:end] = readable
        kept.append(readable)
    return ids, keep, kept


def truth_matrix(
    scenes: list[Scene], captions: list[Caption], kept: list[np.ndarray] | None = None
) -> np.ndarray:
    """Truth of every caption about every scene, for captions with any words hidden.

    Parameters
    ----------
    scenes : list of Scene, length B
    captions : list of Caption, length C
    kept : list of bool arrays, optional
        For each caption, which of its words can be read. A phrase without its colour asks for its
        shape alone, and so on.

    Returns
    -------
    np.ndarray
        (B, C) int8. UNDECIDED: a relation with hidden words whose objects are there.
    """
    present = np.zeros((len(scenes), len(_FEATURES)), dtype=np.float32)
    for i, scene in enumerate(scenes):
        for t in scene.things:
            for feature in ((t.colour, t.shape), (None, t.shape), (t.colour, None)):
                present[i, _FEATURES[feature]] = 1
    needed = np.zeros((len(captions), len(_FEATURES)), dtype=np.float32)
    whole = np.ones(len(captions), dtype=bool)
    for j, caption in enumerate(captions):
        readable = None if kept is None or kept[j].all() else kept[j]
        if readable is None:
            for phrase in caption.phrases:
                needed[j, _FEATURES[phrase]] = 1
            continue
        whole[j] = False
        place = 0
        for colour, shape in caption.phrases:
            place += not caption.bare  # the article
            if colour is not None:
                colour = colour if readable[place] else None
                place += 1
            shape = shape if readable[place] else None
            place += 1 + (0 if caption.bare else len((caption.relation or "and").split()))
            if colour or shape:
                needed[j, _FEATURES[colour, shape]] = 1
    missing = (1 - present) @ needed.T  # (B, C): how many requirements fail
    truth = (missing == 0).astype(np.int8)
    related = np.array([caption.relation is not None for caption in captions])
    for i, j in np.argwhere((truth == TRUE) & related):
        truth[i, j] = _relation_truth(scenes[i], captions[j]) if whole[j] else UNDECIDED
    return truth


def places_of(scenes: list[Scene]) -> np.ndarray:
    """Where each shape and each colour is: (B, 18, 2) float32, x and y from -1 to 1.

    The ten shapes, then the eight colours; NaN where no object or several have it.
    """
    places = np.full((len(scenes), len(_ATTRIBUTES), 2), np.nan, dtype=np.float32)
    for i, scene in enumerate(scenes):
        for attribute in ("shape", "colour"):
            values = [getattr(t, attribute) for t in scene.things]
            for value, t in zip(values, scene.things, strict=True):
                if values.count(value) == 1:
                    centre = np.array([t.column, t.row]) + t.size / 2
                    places[i, _ATTRIBUTES.index(value)] = centre / (GRID / 2) - 1
    return places


def orders_of(captions: list[Caption], kept: list[np.ndarray]) -> list[tuple[int, ...]]:
    """What relation captions say about places: (caption, axis, sign, first, second).

    On this axis (0: x, 1: y) the place of attribute `first` minus that of `second` has this sign.
    Captions with hidden words say nothing.
    """
    orders = []
    for j, caption in enumerate(captions):
        if caption.relation is None or not kept[j].all():
            continue
        axis = int(caption.relation in ("above", "below"))
        sign = 1 if caption.relation in ("right of", "below") else -1
        for first, second in zip(*caption.phrases, strict=True):  # the colours, the shapes
            if first is not None and first != second:
                pair = (_ATTRIBUTES.index(first), _ATTRIBUTES.index(second))
                orders.append((j, axis, sign, *pair))
    return orders


def _relation_truth(scene: Scene, caption: Caption) -> int:
    first, second = caption.phrases
    pairs = itertools.permutations(scene.things, 2)
    return int(
        any(a.is_a(*first) and b.is_a(*second) and holds(caption.relation, a, b) for a, b in pairs)
    )
