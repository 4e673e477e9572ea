"""Writes benchmarks/README.md, every measured table with what it means, and docs/models.md.

    python benchmarks/tables.py

Numbers come from the files in benchmarks/results and data/, and from the demo models' folders; none
is typed here. A file of results may have "notes", sentences on how it was measured, which are
printed below its table and are lost when it is measured anew. Run it after every benchmark: a test
compares.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import model_page
from machine import RESULTS, table

from fixlip.files import atomic

ROOT = Path(__file__).parents[1]
DEMOS = ROOT / "fixlip" / "demo" / "models"
MODELS = ("ViT-B-32", "ViT-B-16", "ViT-B-16-SigLIP", "ViT-L-16-SigLIP2-256")  # small ones first
PASSES = (512, 2048, 4096)
SHOWN = (  # the estimators of data/estimators.json that the page lists
    "split, antithetic, ridge",
    "split, paper's rule",
    "agnostic, antithetic, ridge",
    "shapiq, ProxySHAP, binomial sizes",
    "shapiq, ProxySHAP",
    "shapiq, RegressionFBII",
)


def read(name: str) -> dict:
    """One file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def found(start: str) -> list[str]:
    """Files of results whose names begin like this: small models first, float32 first."""
    names = [path.stem for path in RESULTS.glob(f"{start}-*.json")]

    def place(name: str) -> tuple:
        row = read(name)["rows"][0]
        known = MODELS.index(row["model"]) if row["model"] in MODELS else len(MODELS)
        return known, row["model"], "float32" not in row["type"], name

    return sorted(names, key=place)


def measured_on(machine: dict) -> str:
    """One sentence on a machine."""
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    gpu = "no GPU" if machine["gpu"] == "none" else machine["gpu"]
    processor = f"{machine['cores']} cores of an {machine['processor']}"
    return f"{processor}, {threads}, {gpu}, torch {machine['torch']}, {machine['date']}"


def section(title: str, text: str, names: Iterable[str], after: str = "") -> str:
    """A heading, a paragraph, one table of the rows of some files, their notes and machines."""
    files = [read(name) for name in names]
    notes = dict.fromkeys(note for file in files for note in file.get("notes", ()))
    machines = dict.fromkeys(measured_on(file["machine"]) for file in files)
    rows = [row for file in files for row in file["rows"]]
    parts = [f"## {title}", text, table(rows), " ".join([*filter(None, [after]), *notes])]
    return "\n\n".join(filter(None, [*parts, f"Measured on {'; '.join(machines)}."]))


# --- one function for each section --------------------------------------------------------------


def solver() -> str:
    """The split fit against the dense one."""
    rows = read("solver")["rows"]
    first, last = rows[0], rows[-1]
    text = (
        "The split fit against the dense joint fit of the same two sweeps, 49 + 12 players, width "
        '512 (`python benchmarks/solver.py`). Both give the same cross-modal block; "difference" '
        f"compares it. From {first['values']} to {last['values']} values the split fit becomes "
        f"{first['times faster']} to {last['times faster']} times faster, in "
        f"{first['times smaller']} to {last['times smaller']} times less memory."
    )
    return section("Solving: split against dense", text, ["solver"])


def largest() -> str:
    """All terms of many players."""
    text = (
        "All terms of 256 patches and 64 tokens, as many as SigLIP 2 has at 256 pixels, no filter, "
        "error bars included "
        "(`python benchmarks/solver.py --largest`; the encoder's passes come on top)."
    )
    return section("Solving: many players", text, ["solver-largest"])


def growth() -> str:
    """How solving grows."""
    text = (
        "One of the players, the masks (of both sides) or the width doubles at a time; medians of "
        'five (`python benchmarks/growth.py`). "Power" is the exponent of time at the last '
        "doubling."
    )
    figure = "![Seconds and memory of solving against players, masks and width](results/growth.png)"
    return section("Solving: how it grows", text, ["growth"]) + f"\n\n{figure}"


def estimators() -> str:
    """Error against passes."""
    content = json.loads((ROOT / "data" / "estimators.json").read_text(encoding="utf-8"))
    half = {(r["estimator"], r["budget"]): r for r in content["rows"] if r["p"] == 0.5}

    def cell(name: str, budget: int) -> str:
        return "{cross:.3f} / {within:.3f}".format(**half[name, budget])

    rows = [{"estimator": n} | {f"{b} passes": cell(n, b) for b in PASSES} for n in SHOWN]
    peers = {k: v for k, v in content["peers"].items() if k != "machine"}
    versions = ", ".join(f"{name} {version}" for name, version in peers.items())
    count = len({name for name, _ in half})
    text = (
        "Error of the interactions, image-text / within a side, relative to their size, for as "
        f"many forward passes of the towers (demo-clip, 36 patches and 7 words, p = .5, "
        f"{len(content['pairs'])} pairs; `python benchmarks/estimators.py`, and with `--peers` in "
        f"an environment with shapiq 1.8 or later). All {count} estimators are in "
        "`data/estimators.json`, those of fixlip for p = .3 and .7 too."
    )
    after = (
        "The first is the default of `fixlip.solve`, the second the sampling of the FIxLIP "
        "experiments with plain least squares, the third `fixlip.estimate`."
    )
    machines = f"{measured_on(content['fixlip']['machine'])}; the estimators of shapiq with "
    machines += f"{versions} on {measured_on(content['peers']['machine'])}"
    head = "## Error against forward passes"
    return "\n\n".join([head, text, table(rows), after, f"Measured on {machines}."])


def encoder() -> str:
    """Masked towers against raw ones."""
    text = (
        "Masked embedding against the raw towers of open_clip on as many inputs "
        "(`python benchmarks/encoder.py`; with a model and `--dtype bfloat16` for half precision). "
        "Patches are embedded once and masked behind, the last block answers only for the token "
        "that is read, and captions run at their true length where attention is causal. In half "
        'precision captions stay in float32. "Of the matrix rate" compares with one large matrix '
        "product of the same type."
    )
    return section("Masked towers against raw ones", text, found("encoder"))


def explanation() -> str:
    """One explanation from end to end."""
    names = found("explanation")
    rows = [row for name in names for row in read(name)["rows"]]

    def captions(model: str, dtype: str) -> str:
        """The captions' share of the time, from the lowest to the highest."""
        shares = [
            100 * float(r["text, s"]) / float(r["total, s"])
            for r in rows
            if r["model"] == model and r["type"].endswith(dtype)
        ]
        low, high = f"{min(shares):.0f}", f"{max(shares):.0f}"
        return f"{low} %" if low == high else f"{low} to {high} %"

    text = (
        "Image and caption to all terms with error bars (`python benchmarks/explanation.py` with "
        "`--masks 4096 1024`, `--dtype bfloat16`, `ViT-B-16`, `ViT-L-16-SigLIP2-256 --words 63 "
        "--powers 15` and `ViT-L-16-SigLIP2-256 --words 63 --dtype bfloat16`). SigLIP 2 reads 64 "
        "tokens, the last of which ends the caption, so that 63 can be players. On a CPU the "
        "solver's share is small, and the time is that of the towers."
    )
    siglip = MODELS[-1]
    after = (
        f"In float32, captions take {captions('ViT-B-32', 'float32')} of ViT-B-32's time and "
        f"{captions('ViT-B-16', 'float32')} of ViT-B-16's. Under causal attention, masks that "
        "begin alike could share the rows of their beginnings; as that would spare a part of this "
        "share at most, it was not built. SigLIP 2 always reads all its positions: "
        f"{captions(siglip, 'float32')} of the time in float32, and {captions(siglip, 'bfloat16')} "
        "beside images in bfloat16. Its tokens see one another, and nothing can be shared."
    )
    figure = "![Seconds of one explanation against the game values its masks stand for]"
    figure += "(results/explanation.png)"
    return section("One explanation from end to end", text, names, after) + f"\n\n{figure}"


def precision() -> str:
    """What half precision changes."""
    rows = [row for row in read("precision")["rows"] if row["towers"] == "bfloat16"]
    pairs = sum(row["pairs"] for row in rows)
    whole = [float(row["pairs with all within"].rstrip("%")) / 100 for row in rows]
    out = sum(round(r["pairs"] * (1 - share)) for r, share in zip(rows, whole, strict=True))
    text = (
        "What half precision changes in the interactions of image and text, beside their error "
        "bars (95 % intervals), on held-out scenes with 2,048 image masks "
        "(`python benchmarks/precision.py`). Only matrix products and attention in the blocks of "
        "the image tower are in half precision; weights, norms, sums, the last projection and "
        "captions stay in float32."
    )
    after = (
        f"bfloat16 takes an interaction out of its error bar in {out or 'none'} of these {pairs} "
        f"pairs; the largest change is {max(float(r['largest']) for r in rows):.2f} of an error "
        "bar. Where all masks of an image are listed, as with a handful of regions, error bars are "
        "zero and rounding is all there is: float32 costs little there."
    )
    return section("Half precision", text, ["precision"], after)


def exclip() -> str:
    """exCLIP's factor against the Jacobian."""
    text = (
        "exCLIP's factor of one side, which contracts the Jacobian before it exists, against the "
        'whole Jacobian (`python benchmarks/exclip.py`, random weights; "process" counts the '
        "model and torch)."
    )
    after = (
        "SigLIP's attention pooling needs the whole last block for every token, so its images are "
        "slow on a CPU."
    )
    return section("exCLIP", text, ["exclip"], after)


def study() -> str:
    """Where a study's time goes."""
    text = (
        "Where a study of a thousand pairs spends its time (`python benchmarks/study.py`): 49 + 12 "
        "players, each pair swept, solved without error bars and judged on fresh masks. With a "
        "small encoder and an eighth of the masks all thousand pairs ran; with ViT-B-32 and 2,048 "
        "+ 1,024 masks three did, and the column is a thousand times the median one."
    )
    return section("A study of a thousand pairs", text, ["study"])


def notebooks() -> str:
    """How long the notebooks take."""
    text = (
        "Each notebook at its default parameters, one after another (`python "
        "benchmarks/notebooks.py`). Long studies are read from the tables in `data/`."
    )
    return section("The notebooks", text, ["notebooks"])


def gpu() -> str:
    """What `make gpu` measured, where it was run."""
    names = sorted(path.stem for path in RESULTS.glob("gpu-*.json"))
    if not names:
        text = "No run on a GPU is recorded here. `make gpu` makes one, of eight minutes at most."
        return f"## On a GPU\n\n{text}"
    parts = []
    for name in names:
        file = read(name)
        part = section(f"On a GPU: {file['part']}", f"`{file['command']}`", [name])
        parts.append(f"{part} It {_ended(file)}.")
    return "\n\n".join(parts)


def _ended(file: dict) -> str:
    return "ended well" if not file.get("problem") else f"did not end well: {file['problem']}"


def demo_models() -> str:
    """Accuracy of the demo models."""
    names = ("demo-clip", "demo-siglip", "demo-siglip-fine")
    tables = [json.loads((DEMOS / n / "evaluation.json").read_text("utf-8")) for n in names]
    logs = [(DEMOS / n / "train_log.jsonl").read_text("utf-8").splitlines() for n in names]
    minutes = [json.loads(log[-1])["cpu_seconds"] / 60 for log in logs]
    missed = [100 * (1 - t["zero-shot, held-out combinations"]["accuracy"]) for t in tables]
    counts = sorted({measure["count"] for t in tables for measure in t.values()})

    def cell(measure: dict) -> str:
        return f"{100 * measure['accuracy']:.1f} ± {100 * measure['stderr']:.1f}"

    rows = [
        {"accuracy in %": measure}
        | {f"`{n}`": cell(t[measure]) for n, t in zip(names, tables, strict=True)}
        for measure in tables[0]
    ]
    text = (
        "Accuracy on held-out scenes (`python data/demo_models/evaluate.py NAME`; ± one standard "
        f"error, {counts[0]} to {counts[-1]} scenes for each number; chance is 1.25 % for 80 "
        "classes, 1.6 % for 64 captions, 50 % for swaps)."
    )
    after = (
        "Eight of the 80 colour-shape pairs are held out: no training image or caption shows them. "
        "Colours still go with the right shapes there (colour swap), but an unseen pair's name "
        f"is missed in {min(missed):.0f} to {max(missed):.0f} % of cases. Training took "
        f"{min(minutes):.0f} to {max(minutes):.0f} minutes of one core's time for each model."
    )
    return "\n\n".join(["## The demo models", text, table(rows), after])


INTRODUCTION = """# Measurements

<!-- Written by `python benchmarks/tables.py` from the files of results: do not edit by hand. -->

Each table is one run of the script it names, on the machine it names. Times drift with the
machine; ratios are what to compare. The scripts write to `benchmarks/results/` (the table of
estimators to `data/estimators.json`); afterwards `python benchmarks/tables.py` writes this page
anew, and a test fails where the page and the files differ. `python` is that of the environment,
in a checkout `.venv/bin/python`."""


def page() -> str:
    """benchmarks/README.md."""
    sections = (
        solver,
        largest,
        growth,
        estimators,
        encoder,
        explanation,
        precision,
        exclip,
        study,
        notebooks,
    )
    made = [make() for make in (*sections, gpu, demo_models)]
    return "\n\n".join([INTRODUCTION, *made]) + "\n"


def pages() -> dict[Path, str]:
    """Every generated page and list by its path."""
    architectures = read("architectures")
    return {
        ROOT / "benchmarks" / "README.md": page(),
        ROOT / "docs" / "models.md": model_page.page(architectures, read("gelu")),
        ROOT / "fixlip" / "cli" / "models.json": model_page.listing(architectures),
    }


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for path, text in pages().items():
        with atomic(path) as file:
            file.write(text.encode())
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
