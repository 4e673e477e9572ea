"""A user's program, read by type checkers only: every public name, in the ways it is called."""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from PIL import Image

import fixlip
from fixlip import (
    Advice,
    Encoder,
    Explanation,
    Factor,
    Game,
    MaskSample,
    Sweep,
    budget,
    data,
    explainers,
    metrics,
    plots,
    sampler,
    solver,
    studies,
)
from fixlip.encoders import ImageSide, TextSide, patches_in, players_at
from fixlip.explainers import exclip, grad_eclip, methods
from fixlip.explanation import Terms
from fixlip.games import exact, joint_masks
from fixlip.metrics import comparison


class Own:
    """A side of one's own."""

    n = 3
    names = ("a", "b", "c")

    def embed(self, masks: torch.Tensor) -> torch.Tensor:
        return masks.double()


def one_call(photo: Path, pixels: np.ndarray, picture: Image.Image) -> Explanation:
    encoder = fixlip.load("ViT-B-32", pretrained="openai", device="cpu", dtype="bfloat16")
    assert_type(encoder, Encoder)
    for image in (photo, str(photo), pixels, picture, torch.from_numpy(pixels)):
        found = fixlip.explain(encoder, image, "a dog on a sofa", p=(0.5, 0.3), masks=(512, 256))
        assert_type(found, Explanation)
    assert_type(encoder.logit(photo, "a dog on a sofa"), float)
    return fixlip.explain(encoder, photo, "a dog", masks="auto", tolerance=0.05)


def step_by_step(encoder: Encoder, photo: Path) -> Explanation:
    image = encoder.image(photo, players="2x2")
    text = encoder.text("a dog on a sofa", players="words")
    assert_type(image, ImageSide)
    assert_type(text, TextSide)
    assert_type(image.grid, tuple[int, int])
    assert_type(encoder.dtype, torch.dtype)
    advice = fixlip.advise(image, text, seconds=10.0)
    assert_type(advice, Advice)
    sweeps = [fixlip.sweep(side, masks=256, p=0.5, seed=k) for k, side in enumerate((image, text))]
    assert_type(sweeps[0], Sweep)
    assert_type(sweeps[0].sample, MaskSample)
    halves = fixlip.fit(sweeps[0]), fixlip.fit(sweeps[1], ridge=0.0)
    assert_type(halves[0], Factor)
    assert_type(patches_in(image, (0, 0, 10, 10)), np.ndarray)
    assert_type(players_at(text, 2, 5), np.ndarray)
    assert_type(fixlip.solve(*sweeps, order=2, basis="top"), Explanation)
    return fixlip.pair(*halves)


def results(found: Explanation, folder: Path) -> None:
    assert_type(found.e0, float)
    assert_type(found.cross, np.ndarray)
    assert_type(found.stderr, Terms | None)
    assert_type(found.attributions(), np.ndarray)
    assert_type(found.strongest(3, cross=True), list[tuple[int, int, float]])
    assert_type(found.given("dog"), np.ndarray)
    assert_type(found.stderr_of(Explanation.attributions), np.ndarray)
    assert_type(found.save(folder / "x.safetensors"), Path)
    assert_type(Explanation.load(str(folder)), Explanation)
    found.to_frame().to_csv(folder / "terms.csv")
    plots.heatmap(found, "dog").set_title("where the dog is")
    plots.overview(found).savefig(folder / "all.png")


def any_game() -> float:
    def value(masks: torch.Tensor) -> torch.Tensor:
        return masks.all(1).double()

    found = fixlip.estimate(value, n=3, index="shapley", masks=6, order=1)
    truth = exact.faith_shapley(exact.game_values(value, n=3))
    game = Game(Own(), Own())
    assert_type(game(torch.ones(2, 6, dtype=torch.bool)), torch.Tensor)
    assert_type(joint_masks(3, 3, 16), tuple[torch.Tensor, torch.Tensor])
    return float(np.abs(found.e1 - truth.e1).max())


def other_rooms(encoder: Encoder, photo: Path, folder: Path) -> None:
    sides = encoder.image(photo), encoder.text("a dog")
    maps = fixlip.pair(*(exclip.factor(side, steps=20) for side in sides))
    assert_type(maps, Explanation)
    assert_type(grad_eclip.explain(*sides), Explanation)
    every = methods.explain_all(*sides, methods=["GAME", "FIxLIP"])
    assert_type(every, dict[str, Explanation])
    assert_type(comparison.difference(maps, maps), Explanation)
    sample = sampler.draw(10, 64, p=0.5, seed=0)
    assert_type(sample, MaskSample)
    game = Game(*sides)
    swept = sampler.sweep(sides[0]), sampler.sweep(sides[1])
    assert_type(swept[0], Sweep)
    scores = metrics.p_faithfulness(every, game, p=0.5)
    print(scores, budget.MAX_MASKS + 1, explainers, data, solver.solve_dense(*swept))
    done = studies.study(lambda item: {"n": len(item)}, ["a", "bb"], folder=folder)
    assert_type(done, studies.Study)
    done.table.to_csv(folder / "rows.csv")
