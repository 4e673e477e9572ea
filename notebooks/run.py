"""Runs the notebooks in this folder with papermill, in the environment of this interpreter.

    python notebooks/run.py figures                  every notebook, into runs/figures/
    python notebooks/run.py figures 03 --set p=0.3   one, with another parameter, into runs/
    python notebooks/run.py refresh                  replace stored outputs and figures/ as well
    python notebooks/run.py data 05                  measure the tables of data/ anew (long)
    python notebooks/run.py explain --image photo.jpg --caption "a dog on a sofa"

Each notebook gets a kernel process of its own, which starts in this folder.
"""

import argparse
import ast
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import gallery
import nbformat
import papermill
from ipykernel.kernelspec import write_kernel_spec

from fixlip.files import atomic

ROOT = Path(__file__).resolve().parents[1]
QUICKSTART = "00_quickstart"
Job = tuple[Path, Path, dict[str, object], int | None]  # what `execute` takes
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}


def parameters(notebook: nbformat.NotebookNode) -> dict[str, object]:
    """Return name and default of every parameter that a notebook declares.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        With exactly one cell tagged `parameters`, one `name = literal` (or `name: type = literal`)
        on each line of code. Papermill reads that cell line by line, hence the rule.

    Raises
    ------
    ValueError
        The notebook breaks the rule.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{len(cells)} cells are tagged 'parameters', expected exactly one")
    found = {}
    for node in ast.parse(cells[0].source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        try:
            if len(targets) != 1 or node.lineno != node.end_lineno:
                raise ValueError
            found[targets[0].id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError, TypeError):
            line = ast.unparse(node).splitlines()[0]
            raise ValueError(f"parameters must be one-line 'name = literal', not: {line}") from None
    return found


def check(notebook: nbformat.NotebookNode, names: Sequence[str]) -> None:
    """Raise ValueError if a name is no parameter of the notebook; papermill would only warn."""
    known = parameters(notebook)
    if unknown := sorted(set(names) - set(known)):
        listed = ", ".join(known) or "none"
        raise ValueError(f"unknown parameter {', '.join(unknown)}; this notebook has {listed}")


def parse(notebook: nbformat.NotebookNode, settings: Sequence[str]) -> dict[str, object]:
    """Turn `name=value` texts into values of the types of the notebook's defaults."""
    known, values = parameters(notebook), {}
    for setting in settings:
        name, _, text = setting.partition("=")
        check(notebook, [name])
        default = known[name]
        try:
            value = text if isinstance(default, str | None) else ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = None
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise ValueError(f"{setting}: expected {name}=value with a value like {default!r}")
        values[name] = value
    return values


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Drop, in place, what differs between two runs without a difference in results."""
    notebook.metadata = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)


def execute(
    source: Path, target: Path, values: dict[str, object], timeout: int | None
) -> str | None:
    """Execute one notebook, write the executed copy, return None or one line on what failed."""
    error = None
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / "executed.ipynb"
        try:
            notebook = nbformat.read(source, as_version=4)
            check(notebook, list(values))
            papermill.execute_notebook(
                notebook,
                executed,
                parameters=values,
                kernel_name=KERNELSPEC["name"],
                language=KERNELSPEC["language"],
                cwd=source.parent,
                progress_bar=False,
                execution_timeout=timeout,
                coalesce_streams=True,
            )
        except papermill.PapermillExecutionError as caught:
            error = f"cell In [{caught.exec_count}]: {caught.ename}: {caught.evalue}"
        except Exception as caught:  # not a notebook, a dead kernel, a timeout
            error = f"{type(caught).__name__}: {caught}"
        if executed.is_file():  # a failed run is kept too: it shows the traceback in its place
            result = nbformat.read(executed, as_version=4)
            normalise(result)
            with atomic(target) as file:
                file.write(f"{nbformat.writes(result)}\n".encode())
    return error and error.splitlines()[0]


def timed(job: Job) -> tuple[Path, str | None, float]:
    """Execute one notebook: itself, what failed, and the seconds it took."""
    start = time.monotonic()
    error = execute(*job)
    return job[0], error, time.monotonic() - start


def executed(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Path, str | None, float]]:
    """Execute notebooks, so many at the same time, and yield what `timed` says as each ends."""
    if min(workers, len(jobs)) <= 1:
        yield from map(timed, jobs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(timed, jobs)


def run(
    sources: Sequence[Path],
    copies: Path,
    *,
    figures: Path,
    values: dict[str, object] | None = None,
    in_place: bool = False,
    timeout: int | None = None,
    workers: int = 1,
) -> list[str]:
    """Execute notebooks and say how each went.

    Parameters
    ----------
    sources : sequence of Path
        The notebooks.
    copies, figures : Path
        Folders for the executed copies, and for what notebooks write through `fixlip.paths.output`.
    values : dict, optional
        Parameters to set; every notebook must declare them.
    in_place : bool
        Replace each notebook by its executed copy if every cell succeeded.
    timeout : int, optional
        Seconds that one cell may take; by default as long as it likes.
    workers : int
        How many notebooks are executed at the same time, each with its share of the cores.

    Returns
    -------
    list of str
        Names of the notebooks that failed; the others ran all the same.
    """
    failed = []
    jobs = [(source, copies / source.name, values or {}, timeout) for source in sources]
    together = f", {workers} at a time" if workers > 1 else ""
    print(f"running {', '.join(source.stem for source in sources)}{together}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        # A kernel named python3 may be installed for another interpreter: this one goes first.
        quiet = ["--IPKernelApp.log_level=CRITICAL"]
        write_kernel_spec(Path(folder) / "kernels" / KERNELSPEC["name"], extra_arguments=quiet)
        os.environ["JUPYTER_PATH"] = folder
        os.environ["FIXLIP_OUTPUT"] = str(figures)
        os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no date in PDFs: same figure, same file
        os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm's
        for number, (source, error, seconds) in enumerate(executed(jobs, workers), start=1):
            state = "FAILED" if error else "ok"
            print(f"[{number}/{len(jobs)}] {source.stem} ... {state}, {seconds:.1f} s", flush=True)
            if error:
                failed.append(source.stem)
                print(f"    {error}", flush=True)
            elif in_place:
                (copies / source.name).replace(source)
    if failed:
        print(f"{len(failed)} of {len(sources)} notebooks failed: {', '.join(failed)}")
    return failed


def find(names: Sequence[str]) -> list[Path]:
    """Return the notebooks whose names begin with one of `names`; all of them without names."""
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    known = ", ".join(path.stem for path in paths) or "none"
    chosen = []
    for stem in (Path(name).name.removesuffix(".ipynb") for name in names or [""]):
        matches = [path for path in paths if path.stem.startswith(stem)]
        if not matches:
            raise ValueError(f"no notebook called {stem or 'anything'}; there are {known}")
        chosen += [path for path in matches if path not in chosen]
    return chosen


def run_apart(source: Path, title: str, settings: Sequence[str], timeout: int | None) -> list[str]:
    """Run one notebook with other parameters, all its results in a new folder of `runs/`."""
    values = parse(nbformat.read(source, as_version=4), settings)
    slug = re.sub(r"\W+", "-", title.lower()).strip("-")[:48]
    folder = ROOT / "runs" / f"{datetime.now():%Y%m%d-%H%M%S}-{slug}"
    failed = run([source], folder, figures=folder, values=values, timeout=timeout)
    print(f"{'what there is of it' if failed else 'the result'} is in {folder}")
    return failed


def explain(options: argparse.Namespace) -> list[str]:
    """Run the quickstart on the image and the caption given."""
    if not options.image or not options.caption.strip():
        raise ValueError("explain needs both: --image photo.jpg --caption 'a dog on a sofa'")
    image = Path(options.image).expanduser().resolve()
    if not image.is_file():
        raise ValueError(f"there is no image {image}")
    # the quickstart's own test images have nothing to do with the user's
    settings = [f"image={image}", f"caption={options.caption}", "mosaics=0"]
    settings += [f"model={options.model}"] if options.model else []
    settings += [f"pretrained={options.pretrained}"] if options.pretrained else []
    title = f"{image.stem}-{options.caption}"
    return run_apart(find([QUICKSTART])[0], title, settings, options.timeout)


def run_chosen(options: argparse.Namespace) -> list[str]:
    """Run the notebooks named into runs/; `refresh` takes outputs and figures over."""
    sources, refresh = find(options.names), options.command == "refresh"
    if options.set:
        if len(sources) != 1 or refresh:
            raise ValueError("--set goes with one notebook, and with figures only")
        return run_apart(sources[0], sources[0].stem, options.set, options.timeout)
    copies, committed = ROOT / "runs" / "notebooks", ROOT / "figures"
    folder = committed if refresh else ROOT / "runs" / "figures"
    failed = run(
        sources,
        copies,
        figures=folder,
        in_place=refresh,
        timeout=options.timeout,
        workers=options.workers,
    )
    if refresh:
        print(f"figures are in {folder}, executed notebooks in {sources[0].parent}")
        return failed
    page = gallery.write_page(folder, find([]), f"../{copies.name}")
    print(f"all figures: {page}; executed notebooks are in {copies}")
    made = [name for path in sources for name in gallery.places(nbformat.read(path, 4))]
    print(gallery.compare(folder, committed, made))
    return failed


def measure(options: argparse.Namespace) -> list[str]:
    """Run notebooks with recompute=True, and put the tables that they measure into data/."""
    sources = [
        path
        for path in find(options.names)
        if "recompute" in parameters(nbformat.read(path, as_version=4))
    ]
    if not sources:
        raise ValueError("none of these notebooks has a parameter recompute: nothing to measure")
    failed, folder = [], ROOT / "runs" / "data"
    for source in sources:
        with tempfile.TemporaryDirectory() as figures:
            values = {"recompute": True}
            error = run([source], folder, figures=Path(figures), values=values, timeout=None)
            for path in sorted(Path(figures).glob("data/*.json")) if not error else ():
                with atomic(ROOT / "data" / path.name) as file:
                    file.write(path.read_bytes())
                print(f"    data/{path.name}")
        failed += error
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit status."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("command", choices=["figures", "refresh", "data", "explain"])
    parser.add_argument("names", nargs="*", help="notebooks, or how their names begin; default all")
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="set a parameter")
    parser.add_argument("--timeout", type=int, default=3600, help="seconds that a cell may take")
    parser.add_argument("--workers", type=int, default=1, help="notebooks at the same time")
    for name in ("image", "caption", "model", "pretrained"):
        parser.add_argument(f"--{name}", default="", help="for explain")
    options = parser.parse_args(arguments)
    try:
        todo = {"explain": explain, "data": measure}.get(options.command, run_chosen)
        return 1 if todo(options) else 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
