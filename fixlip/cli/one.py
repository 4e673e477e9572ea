"""One pair: a table of its strongest interactions, and files of the explanation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fixlip.checks import integer
from fixlip.extras import need
from fixlip.files import atomic, writable
from fixlip.pipeline import explain as explain_pair

if TYPE_CHECKING:
    import pandas as pd

    from fixlip.encoders import Encoder
    from fixlip.explanation import Explanation

FILES = {
    "explanation.safetensors": "everything, for fixlip.Explanation.load",
    "explanation.png": "a picture",
    "terms.csv": "a table of all terms",
}


def explain(options: argparse.Namespace) -> int:
    """Explain the pair that the options name."""
    integer("--top", options.top, at_least=0)
    need("fixlip explain", "open_clip", "studies", *(() if options.out is None else ("plots",)))
    out = None if options.out is None else folder(options.out)  # before the work, not after
    encoder = load_encoder(options)
    found = explain_pair(encoder, options.image, options.caption, **settings(options))
    frame = found.to_frame()
    written = [] if out is None else _write(found, frame, out)
    if options.csv:
        sys.stdout.write(frame.to_csv(index=False))
    elif options.json:
        print(json.dumps(_document(options, encoder, found, frame), indent=1, ensure_ascii=False))
    else:
        _print(options, encoder, found, frame)
    for path in written:
        print(f"{path}: {FILES[path.name]}", file=sys.stderr)
    return 0


def load_encoder(options: argparse.Namespace) -> Encoder:
    """The model that the options name."""
    from fixlip.encoders import load

    return load(
        options.model,
        pretrained=options.pretrained,
        tokenizer=options.tokenizer,
        device=options.device,
        dtype=options.dtype,
    )


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of an explanation, as `fixlip.explain` takes it."""
    budget: dict[str, Any] = {"masks": (options.masks, max(1, options.masks // 2))}
    if options.tolerance is not None:
        budget = {"masks": "auto", "tolerance": options.tolerance}
    return budget | {
        "p": options.p,
        "seed": options.seed,
        "image_players": options.image_players,
        "text_players": options.text_players,
    }


def folder(path: str) -> Path:
    """The folder of the results, made if it is not there."""
    return writable(path, "give another folder as -o")


def _write(found: Explanation, frame: pd.DataFrame, out: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")  # no window is needed
    from fixlip import plots

    paths = [out / name for name in FILES]
    found.save(paths[0])
    with atomic(paths[1]) as file:
        plots.overview(found).savefig(file, format="png", dpi=110)
    with atomic(paths[2], text=True) as file:
        frame.to_csv(file, index=False, lineterminator="\n")
    return paths


def _document(
    options: argparse.Namespace, encoder: Encoder, found: Explanation, frame: pd.DataFrame
) -> dict:
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return {
        "image": options.image,
        "caption": options.caption,
        "model": encoder.info,
        "score": found.grand_value,
        "empty": found.empty_value,
        "fit": found.info["fit"],
        "budget": found.info.get("budget"),
        "terms": rows,
    }


def _print(
    options: argparse.Namespace, encoder: Encoder, found: Explanation, frame: pd.DataFrame
) -> None:
    weights = f" ({encoder.pretrained})" if encoder.pretrained else ""
    print(f"{options.image}: {options.caption!r}")
    print(f"{encoder.name}{weights}: {found.n_image} image and {found.n_text} text players")
    print(f"score {found.grand_value:.2f}; with everything removed {found.empty_value:.2f}")
    across = frame[frame.sides == "image-text"]
    strongest = across.reindex(across.estimate.abs().sort_values(ascending=False).index)
    strongest = strongest.head(options.top)
    if strongest.empty:
        return
    print(f"\nstrongest of {len(across)} interactions of image and text, with 95 % intervals")
    rows = [("image", "text", "interaction", "low", "high")]
    for row in strongest.itertuples():
        reach = 1.96 * row.stderr
        numbers = (row.estimate, row.estimate - reach, row.estimate + reach)
        rows.append((row.first, row.second, *map(signed, numbers)))
    print_table(rows, left=(0, 1))
    where = "patches are (row, column), counted from 0; " * (options.image_players == "patches")
    print(f"{where}+ raises the score, - lowers it")


def signed(number: float) -> str:
    """A number with its sign, or "-" where it is not known."""
    return "-" if np.isnan(number) else f"{number:+.3f}"


def print_table(rows: list[tuple[str, ...]], *, left: tuple[int, ...]) -> None:
    """Print a head and rows in columns, some of them aligned to the left."""
    widths = np.array([[len(cell) for cell in row] for row in rows]).max(0)
    for row in rows:
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
