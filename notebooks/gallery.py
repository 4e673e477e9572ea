"""The page of all figures, and how far the numbers of new ones are from those committed."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import nbformat
import numpy as np
from PIL import Image

from fixlip.files import atomic

SAVED = re.compile(r"""plots\.save\(\s*\w+\s*,\s*["']([^"']+)["']""")
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>fixlip: all figures</title>
<style>
body {{ font-family: sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }}
img {{ max-width: 100%; }}
figure {{ margin: 2em 0; }}
figcaption {{ color: #444; }}
</style>
</head>
<body>
<h1>fixlip: all figures</h1>
{body}
</body>
</html>
"""


def read(path: Path) -> nbformat.NotebookNode:
    """Return a notebook; raise ValueError, which names the file, for what is none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        return notebook
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a notebook that can be read: {reason:.120}") from None


def places(notebook: nbformat.NotebookNode) -> dict[str, tuple[str, str]]:
    """Return name -> (title of the notebook, heading) of every figure that a notebook saves."""
    found, title, heading = {}, "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            title = title or (headings or [""])[0]
            heading = (headings or [heading])[-1]
        elif cell.cell_type == "code":
            found |= {name: (title, heading) for name in SAVED.findall(cell.source)}
    return found


def write_page(folder: Path, sources: Sequence[Path], copies: str) -> Path:
    """Write ``index.html``: every picture of the folder inside it, by notebook, with its text.

    Parameters
    ----------
    folder : Path
        With the figures, as `fixlip.plots.save` leaves them.
    sources : sequence of Path
        The notebooks, in the order of the page.
    copies : str
        Folder of the executed notebooks, as seen from `folder`.
    """
    parts = []
    for source in sources:
        found = places(read(source))
        there = {name: place for name, place in found.items() if _picture(folder, name).is_file()}
        if not there:
            continue
        (title, _) = next(iter(there.values()))
        link = f"{copies}/{source.name}"
        parts.append(f'<h2>{html.escape(title)}</h2>\n<p><a href="{link}">{source.stem}</a></p>')
        parts += [_figure(_picture(folder, name), heading) for name, (_, heading) in there.items()]
    path = folder / "index.html"
    with atomic(path) as file:
        file.write(PAGE.format(body="\n".join(parts)).encode())
    return path


def _picture(folder: Path, name: str) -> Path:
    return folder / f"{name}.png"


def written(folder: Path, notebook: nbformat.NotebookNode) -> dict[str, int]:
    """When each figure of a notebook was last written: name -> nanoseconds, of those there are."""
    paths = {name: _picture(folder, name) for name in places(notebook)}
    return {name: path.stat().st_mtime_ns for name, path in paths.items() if path.is_file()}


def unseen(notebook: nbformat.NotebookNode, names: Collection[str]) -> list[str]:
    """Those of some figures whose cells, in an executed notebook, hold no picture."""
    blind = [cell for cell in notebook.cells if cell.cell_type == "code" and not _shows(cell)]
    return [name for cell in blind for name in SAVED.findall(cell.source) if name in names]


def _shows(cell: nbformat.NotebookNode) -> bool:
    return any(kind.startswith("image/") for o in cell.outputs for kind in o.get("data", ()))


def _figure(path: Path, heading: str) -> str:
    with Image.open(path) as picture:
        text = html.escape(picture.info.get("Description", ""), quote=True)
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure id="{path.stem}">\n<img src="data:image/png;base64,{data}" alt="{text}">\n'
        f"<figcaption><b>{path.stem}</b>: {html.escape(heading)}<br>{text}</figcaption>\n</figure>"
    )


def distance(new: dict, old: dict) -> float | None:
    """Return the largest difference of two figures' numbers, or None where their shapes differ.

    A difference counts relative to the range of its (committed) array, or to its size where all
    entries are equal; an array of rounding errors alone counts by the figure's largest number.
    """
    if set(new) != set(old):
        return None
    pairs = [tuple(_array(values) for values in (new[name], old[name])) for name in old]
    for a, b in pairs:
        if a is None or b is None or a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
            return None
    known = [b[~np.isnan(b)] for _, b in pairs]
    least = 1e-9 * max((np.abs(b).max() for b in known if b.size), default=0.0)
    largest = 0.0
    for (a, b), numbers in zip(pairs, known, strict=True):
        if numbers.size:
            unit = max(np.ptp(numbers) or np.abs(numbers).max(), least) or 1.0
            largest = max(largest, float(np.nanmax(np.abs(a - b))) / unit)
    return largest


def _array(values: list) -> np.ndarray | None:
    try:
        return np.array(values, dtype=np.float64)  # null is NaN
    except ValueError:  # rows of several lengths
        return None


def compare(folder: Path, committed: Path, names: Sequence[str]) -> str:
    """Say in one line how far the numbers of new figures are from the committed ones.

    Parameters
    ----------
    folder, committed : Path
        Folders with a ``name.json`` for every figure that can be compared.
    names : sequence of str
        The figures that were to be made.
    """
    found, missing, changed, left_out = {}, [], [], 0
    for name in names:
        new, old = (path / f"{name}.json" for path in (folder, committed))
        if new.is_file() and old.is_file():
            found[name] = distance(*(json.loads(p.read_text()) for p in (new, old)))
            changed += [name] * (found[name] is None)
        elif _picture(folder, name).is_file() and not new.is_file():
            left_out += 1  # plots.save(..., compare=False): it measures the machine
        else:
            missing.append(name)
    known = {name: value for name, value in found.items() if value is not None}
    line = f"numbers of {len(known)} figures against the committed ones"
    if known:
        worst = max(known, key=known.get)
        line += f": largest difference {known[worst]:.2g} of an array's range ({worst})"
        line += f", median {np.median([*known.values()]):.2g}"
    for what, which in (("missing", missing), ("of another shape", changed)):
        line += f"; {len(which)} {what}" + (f" ({', '.join(which)})" if which else "")
    return line + (f"; {left_out} of times left out" if left_out else "")
