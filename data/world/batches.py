"""Training batches: scenes, their captions, and what is exactly true of what."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from recipes import CONTEXT, Recipe
from vocabulary import PAD, make_tokenizer

from fixlip.demo.concepts import CONCEPTS
from fixlip.demo.phrases import COLOURS, COUNTS, INVERSE, SIZES, Caption
from fixlip.demo.sampling import sample_caption, sample_scene
from fixlip.demo.world import Scene

TRUE, FALSE, UNKNOWN = 1, 0, -1
LATER = (0.4, 0.2, 0.1, 0.3)  # shares of scenes of one to four things
EARLY = (0.76, 0.12, 0.06, 0.06)
RELATIONS = 0.4  # of the captions of several things
TWINS = 16  # scenes that come again with two things in each other's place, of 128
RELATIONS_OF_TWINS = 0.75  # of their captions: nothing else tells them apart
REDUCED = 4  # one image of so many is also shown with more patches hidden
NAMES = tuple(CONCEPTS)
GROUPS = {n: [m for m in NAMES if CONCEPTS[m].group == CONCEPTS[n].group] for n in NAMES}


@dataclass(frozen=True)
class Batch:
    """Images (rows) and captions (columns).

    The first B rows and columns are the scenes and their own captions; then rows of the same
    images with more patches hidden and one with all hidden; columns of edited captions, of own
    captions with more words hidden, and of captions without any words.

    Attributes
    ----------
    images : (R, 3, H, W) uint8
    patches : (R, g, g) bool
        False = hidden.
    ids, keep : (C, L) int64 and bool
        Tokens; False = hidden from attention.
    truth : (R, C) int8
        TRUE, FALSE, or UNKNOWN: left out of the loss.
    scenes, captions : int
        Rows with whole images, columns with own and edited captions.
    """

    images: torch.Tensor
    patches: torch.Tensor
    ids: torch.Tensor
    keep: torch.Tensor
    truth: torch.Tensor
    scenes: int
    captions: int


class Batches(torch.utils.data.Dataset):
    """The batch of every step; what a step's batch holds depends on the seed and the step only."""

    def __init__(self, recipe: Recipe, seed: int):
        self.recipe, self.seed = recipe, seed
        self.tokenizer = make_tokenizer(recipe.kind)
        self.first = 1 if recipe.kind == "clip" else 0  # of the words, in a row of tokens
        self.pad = self.tokenizer.token_to_id(PAD)
        self.tokens: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return self.recipe.steps

    def __getitem__(self, step: int) -> Batch:
        recipe = self.recipe
        rng = np.random.default_rng([self.seed, step])
        share = step / recipe.steps
        informing, masking = share >= recipe.information, share >= recipe.masking
        size, grid = recipe.images, recipe.grid
        counts = 1 + rng.choice(4, size=size, p=EARLY if share < recipe.single else LATER)
        scenes = [
            sample_scene([self.seed, step, k], things=int(count), canvas=recipe.canvas)
            for k, count in enumerate(counts)
        ]
        related = np.full(size, RELATIONS)
        if informing:
            pairs = TWINS * size // 128
            for k in range(pairs):
                scenes[2 * k : 2 * k + 2] = twins(rng, [self.seed, step, 2 * k], recipe.canvas)
            related[: 2 * pairs] = RELATIONS_OF_TWINS
        own = [
            sample_caption(rng, s.things, s.background, relations=share)
            for s, share in zip(scenes, related, strict=True)
        ]
        hard = [
            (k, edited)
            for k, scene in enumerate(scenes)
            for _ in range(2 if informing else 1)
            if (edited := edit(rng, own[k], scene)) is not None
        ]
        captions = [*own, *(caption for _, caption in hard)]
        ids = [self.encode(str(caption)) for caption in captions]
        keep = [np.ones(len(row), dtype=bool) for row in ids]
        truth = [[truth_of(caption, scene) for caption in captions] for scene in scenes]
        truth = np.array(truth, dtype=np.int8)  # (B, C)
        truth[np.arange(size), np.arange(size)] = TRUE
        if informing:
            for k in np.flatnonzero(rng.random(size) < 0.3):
                keep[k] = hide(rng, keep[k], rng.uniform(0, 0.5), self.first)
                maybe = [_shares_a_name(own[k], scene) for scene in scenes]
                truth[maybe, k] = UNKNOWN
                truth[k, k] = TRUE
            reduced = [hide(rng, keep[k], rng.uniform(0.3, 0.95), self.first) for k in range(size)]
            more = np.full((size, size), UNKNOWN, dtype=np.int8)
            more[np.arange(size), np.arange(size)] = FALSE
            lengths = sorted({len(row) for row in ids[:size]})
            empty = np.full((size, len(lengths)), FALSE, dtype=np.int8)
            truth = np.concatenate([truth, more, empty], axis=1)
            rows = [next(row for row in ids if len(row) == length) for length in lengths]
            ids = [*ids, *ids[:size], *rows]
            keep = [
                *keep,
                *reduced,
                *(hide(rng, np.ones(n, dtype=bool), 1.0, self.first) for n in lengths),
            ]
        images = np.stack([np.asarray(scene.image) for scene in scenes])  # (B, H, W, 3)
        patches = np.ones((size, grid, grid), dtype=bool)
        if masking:
            rates = rng.uniform(0, 0.7, size=size) * (rng.random(size) < 0.6)
            patches &= rng.random(patches.shape) >= rates[:, None, None]
        if informing:
            chosen = rng.choice(size, size // REDUCED, replace=False)
            rates = rng.uniform(0.3, 0.95, size=len(chosen))
            fewer = patches[chosen] & (
                rng.random((len(chosen), grid, grid)) >= rates[:, None, None]
            )
            rows = np.full((len(chosen) + 1, truth.shape[1]), UNKNOWN, dtype=np.int8)
            rows[np.arange(len(chosen)), chosen] = FALSE
            rows[-1, : len(captions)] = FALSE
            images = np.concatenate([images, images[chosen], images[:1]])
            patches = np.concatenate([patches, fewer, np.zeros((1, grid, grid), dtype=bool)])
            truth = np.concatenate([truth, rows])
        length = max(len(row) for row in ids) if recipe.kind == "clip" else CONTEXT
        padded = np.full((len(ids), length), self.pad)
        kept = np.ones(padded.shape, dtype=bool)
        for k, (row, shown) in enumerate(zip(ids, keep, strict=True)):
            padded[k, : len(row)], kept[k, : len(row)] = row, shown
        return Batch(
            torch.from_numpy(images).movedim(3, 1).contiguous(),
            torch.from_numpy(patches),
            torch.from_numpy(padded),
            torch.from_numpy(kept),
            torch.from_numpy(truth),
            size,
            len(captions),
        )

    def encode(self, caption: str) -> list[int]:
        """Token ids of a caption with its special tokens, without padding."""
        if caption not in self.tokens:
            self.tokens[caption] = self.tokenizer.encode(caption).ids
        return self.tokens[caption]


def twins(rng: np.random.Generator, seed: list[int], canvas: int) -> list[Scene]:
    """A scene of two to four things, and the same with two of them in each other's place."""
    names = [NAMES[k] for k in rng.choice(len(NAMES), rng.integers(2, 5), replace=False)]
    swapped = [names[1], names[0], *names[2:]]
    return [sample_scene(seed, things=each, canvas=canvas) for each in (names, swapped)]


def truth_of(caption: Caption, scene: Scene) -> int:
    """FALSE where a caption is false; UNKNOWN where it is true: it is no negative."""
    names = {thing.name for thing in scene.things}
    if any(phrase.name not in names for phrase in caption.phrases):
        return FALSE
    return UNKNOWN if scene.is_true(caption) else FALSE


def _shares_a_name(caption: Caption, scene: Scene) -> bool:
    return bool({p.name for p in caption.phrases} & {thing.name for thing in scene.things})


def hide(rng: np.random.Generator, keep: np.ndarray, rate: float, first: int) -> np.ndarray:
    """Hide tokens from the first word on: each with a probability, at least one if any is left."""
    inner = first + np.flatnonzero(keep[first:-1])
    hidden = inner[rng.random(len(inner)) < rate]
    if not len(hidden) and len(inner):
        hidden = rng.choice(inner, 1)
    kept = keep.copy()
    kept[hidden] = False
    return kept


def edit(rng: np.random.Generator, caption: Caption, scene: Scene) -> Caption | None:
    """A caption that differs in one respect and is false of the scene; None if none was found."""
    for _ in range(4):
        edited = _edit(rng, caption, scene)
        if edited is not None and not scene.is_true(edited):
            return edited
    return None


def _edit(rng: np.random.Generator, caption: Caption, scene: Scene) -> Caption | None:
    if caption.relation is not None and rng.random() < 0.8:
        if rng.random() < 0.5:
            return replace(caption, phrases=caption.phrases[::-1])
        return replace(caption, relation=INVERSE[caption.relation])
    if caption.background is not None and rng.random() < 0.5:
        return replace(caption, background=list(COLOURS)[rng.integers(len(COLOURS))])
    k = int(rng.integers(len(caption.phrases)))
    phrase = caption.phrases[k]
    if phrase.count > 1 and rng.random() < 0.5:
        options = [count for count in COUNTS.values() if count != phrase.count]
        new = replace(phrase, count=int(options[rng.integers(len(options))]))
    elif phrase.size is not None and rng.random() < 0.5:
        new = replace(phrase, size=SIZES[1 - SIZES.index(phrase.size)])
    else:
        names = GROUPS[phrase.name] if rng.random() < 0.5 else NAMES
        name = names[rng.integers(len(names))]
        uncounted = phrase.count > 1 and CONCEPTS[name].plural is None
        new = replace(phrase, name=name, count=1 if uncounted else phrase.count)
    return replace(caption, phrases=(*caption.phrases[:k], new, *caption.phrases[k + 1 :]))
