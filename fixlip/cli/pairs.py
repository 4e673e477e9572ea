"""Many pairs: explained one after another, kept, and put into a table by word and class."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import bootstrap

from fixlip.checks import integer, warn
from fixlip.cli.one import folder, load_encoder, print_table, settings, signed
from fixlip.extras import need
from fixlip.files import atomic, user_path
from fixlip.pipeline import explain as explain_pair

if TYPE_CHECKING:
    import pandas as pd

    from fixlip.encoders import Encoder

COLUMNS = ("image", "caption")
ALL = "(all)"  # words, or classes
MEASURES = ("interaction", "attribution")  # of a word with the whole image; of a word by itself
RESAMPLES, LEVEL, FEWEST = 9999, 0.95, 5  # of fewer pairs an interval would be their range
TABLES = ("by_pair", "words", "failures")  # files of the results


def explain(options: argparse.Namespace) -> int:
    """Explain the pairs of a file; the status is 1 where one of them failed."""
    integer("--top", options.top, at_least=0)
    need("fixlip explain", "open_clip", "studies")
    from fixlip.studies import study

    items = read_pairs(options.image)
    out = folder(options.out)
    files = {name: out / f"{name}.csv" for name in TABLES}
    if (source := user_path(options.image).resolve()) in {f.resolve() for f in files.values()}:
        raise ValueError(f"{source.name} would be overwritten by the results; give another -o")
    constants = {"encoder": load_encoder(options), "options": settings(options)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* items failed")  # they are listed below
        done = study(measure, items, folder=out / "kept", constants=constants)
    words = summary(done.table, options.seed) if len(done.table) else done.table
    by_pair, failures = (t.drop(columns="path") for t in (done.table, done.failures))
    for file, table in zip(files.values(), (by_pair, words, failures), strict=True):
        with atomic(file, text=True) as written:
            table.to_csv(written, index=False, lineterminator="\n")
    if options.csv:
        sys.stdout.write(words.to_csv(index=False))
    elif options.json:
        rows = words.astype(object).where(words.notna(), None).to_dict("records")
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        print(done.summary())
        if len(words):
            _print(words, options.top)
    for row in done.failures.itertuples():
        print(f"fixlip: {row.image}, {row.caption!r}: {row.error}", file=sys.stderr)
    print(f"the tables are in {out}: {', '.join(f.name for f in files.values())}", file=sys.stderr)
    return 1 if len(done.failures) else 0


def read_pairs(path: str) -> list[dict[str, Any]]:
    """Read a .csv file of pairs: the columns image and caption, and maybe class.

    Raises FileNotFoundError, or ValueError for a file that is no such table, or a row that has
    more or fewer fields than the first. A row that repeats another is left out, with a warning.
    """
    file = user_path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {path!r}; check the path")
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            head, *rows = [row for row in csv.reader(text, strict=True) if row] or [[]]
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} is no table in UTF-8 with commas between columns: {error}"
        ) from None
    names = [name.strip().lower() for name in head]
    if any(names.count(name) != 1 for name in COLUMNS):
        raise ValueError(
            f"{path} needs one column image and one column caption, with commas between columns; "
            f"its first row has {', '.join(map(repr, head)) or 'nothing'}"
        )
    if not rows:
        raise ValueError(f"{path} has the columns {', '.join(names)}, and no row for a pair")
    items: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise ValueError(
                f"{path}, row {number} has {len(row)} fields and the first row {len(names)}: put a "
                f"caption with commas into quotes; got {row!r:.120}"
            )
        cells = dict(zip(names, row, strict=True))
        pair = cells["image"], cells["caption"], cells.get("class", "")
        try:
            place = file.parent / user_path(pair[0])
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from None
        items[pair] = {"image": pair[0], "path": place, "caption": pair[1], "class": pair[2]}
    if repeated := len(rows) - len(items):
        warn(f"{path}: {repeated} rows repeat a pair, which counts once")
    return [*items.values()]


def measure(
    item: dict[str, Any], encoder: Encoder, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Explain a pair: one row for each text player, and one for all of them."""
    found = explain_pair(encoder, item["path"], item["caption"], progress=False, **options)
    text = slice(found.n_image, None)
    of_words = {
        "interaction": lambda e: e.cross.sum(0),
        "attribution": lambda e: e.attributions()[text],
    }
    names = [*(name.lower() for name in found.players[text]), ALL]
    columns = {"word": names, "score": [found.grand_value] * len(names)}
    for name, quantity in of_words.items():

        def with_sum(explanation, quantity=quantity):
            values = quantity(explanation)
            return np.append(values, values.sum())

        columns[name] = with_sum(found).tolist()
        columns[f"{name}_stderr"] = found.stderr_of(with_sum).tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def summary(table: pd.DataFrame, first_seed: int) -> pd.DataFrame:
    """Means over pairs for every word and class, with bootstrap intervals over the pairs.

    Parameters
    ----------
    table : pandas.DataFrame
        A row per pair and word, as `measure` gives them.
    first_seed : int
        Of the resampling.

    Returns
    -------
    pandas.DataFrame
        A row per class and word: ``pairs`` (how many name it), and for "interaction" (the sum over
        the image's players) and "attribution" the mean and the ends of its 95 % interval, ``_low``
        and ``_high``: percentiles of 9,999 resamples of the pairs, NaN for fewer than 5 pairs.
    """
    import pandas as pd

    # a word that a caption repeats counts once, with its sum
    each = table.groupby(["class", "image", "caption", "word"], as_index=False)[
        list(MEASURES)
    ].sum()
    each = pd.concat([each.assign(**{"class": ALL}), each[each["class"] != ""]])
    rows = []
    for (kind, word), values in each.groupby(["class", "word"]):
        row = {"class": kind, "word": word, "pairs": len(values)}
        for name in MEASURES:
            low, high = _interval(values[name].to_numpy(), first_seed)
            row |= {name: values[name].mean(), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    rows.sort(
        key=lambda row: (row["class"] != ALL, row["class"], row["word"] != ALL, -row["pairs"])
    )
    return pd.DataFrame(rows)


def _interval(values: np.ndarray, first_seed: int) -> tuple[float, float]:
    """The ends of the 95 % bootstrap interval of a mean."""
    if len(values) < FEWEST:
        return np.nan, np.nan
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 10**6 // len(values)),  # so many numbers at once
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(first_seed),
    )
    return tuple(found.confidence_interval)


def _print(words: pd.DataFrame, top: int) -> None:
    """Print the words of every class that most pairs name."""
    for kind, table in words.groupby("class", sort=False):
        print(f"\n{kind}: interaction of words with their images, means over pairs")
        rows = [("word", "pairs", "interaction", "low", "high")]
        for row in table.head(1 + top).itertuples():  # all words together come first
            numbers = (row.interaction, row.interaction_low, row.interaction_high)
            rows.append((row.word, str(row.pairs), *map(signed, numbers)))
        print_table(rows, left=(0,))
    print(f"\nlow and high: 95 % bootstrap intervals over pairs, of {FEWEST} pairs or more")
