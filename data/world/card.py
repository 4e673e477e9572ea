"""Write a demo model's card from its log and its measures: `python data/world/card.py FOLDER`."""

import argparse
import json
from pathlib import Path
from textwrap import fill

from evaluate import Measure
from recipes import RECIPES

from fixlip.demo.concepts import CONCEPTS
from fixlip.files import atomic, user_path

WORST = 12  # concepts


def card(folder: Path) -> str:
    """The card, in Markdown; every number is read from the files in the folder."""
    head, *steps = map(json.loads, (folder / "train_log.jsonl").read_text().splitlines())
    found = json.loads((folder / "evaluation.json").read_text())
    name, last = head["name"], steps[-1]
    recipe = RECIPES[name]
    started = f" It started from {recipe.start_from}'s weights." if recipe.start_from else ""
    stages = len(head["restarts"]) + 1
    parts = f", in {stages} parts that went on from half-precision weights" if stages > 1 else ""
    measures = [Measure(**measure) for measure in found["measures"]]
    missed = [measure.name for measure in measures if measure.met is False]
    worst = sorted(found["concepts"].items(), key=lambda item: item[1])[:WORST]
    loss = "CLIP's softmax" if recipe.kind == "clip" else "SigLIP's sigmoid"
    facts = [
        f"An image and caption encoder for drawn scenes of {len(CONCEPTS)} everyday things, in an "
        f"architecture of open_clip ({recipe.grid} x {recipe.grid} patches of {recipe.patch} "
        "pixels). It exists to be explained: of its scenes and captions the exact truth is known. "
        "It knows nothing of photographs, and no words but those of the captions.",
        "## Training",
        f"{last['step']:,} of {recipe.steps:,} steps of {recipe.images} scenes "
        f"(`data/world/train.py`, seed {head['seed']}){parts}; {loss} loss with the exact truth; "
        f"{last['cpu_seconds'] / 3600:.1f} hours of CPU time.{started} Six sets of pictograms, by "
        "licences and authors that `fixlip/demo/pictograms` names; EmojiTwo and OpenMoji were "
        "never trained on. The weights are half precision.",
        "## Measures",
        "On scenes that no training run has seen (`data/world/evaluate.py`): mean, standard error, "
        "n.",
        "\n".join(["| measure | | n | aim |", "|---|---|---|---|", *map(row, measures)]),
        f"Not reached: {'; '.join(missed)}." if missed else "All aims are reached.",
        f"The things known worst (share of single ones found among all {len(CONCEPTS)}): "
        + ", ".join(f"{concept} {share:.2f}" for concept, share in worst)
        + ".",
    ]
    lines = [text if text[0] in "#|" else fill(text, 115) for text in facts]
    return "\n\n".join([f"# {name}", *lines]) + "\n"


def row(measure: Measure) -> str:
    """A measure as a row of the table."""
    goal = f"{measure.goal}, missed" if measure.met is False else measure.goal
    value = f"{measure.value:.3f} ± {measure.stderr:.3f}"
    return f"| {measure.name} | {value} | {measure.count:,} | {goal} |"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=user_path, help="with the log and evaluation.json")
    folder = parser.parse_args().folder
    with atomic(folder / "README.md") as file:
        file.write(card(folder).encode())


if __name__ == "__main__":
    main()
