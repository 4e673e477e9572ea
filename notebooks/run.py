"""Runs the notebooks in this folder with papermill, in the environment of this interpreter.

    python notebooks/run.py figures                  every notebook, into runs/figures/
    python notebooks/run.py figures 03 --set p=0.3   one, with another parameter, into runs/
    python notebooks/run.py refresh                  replace stored outputs and figures/ as well
    python notebooks/run.py data 05                  measure the tables of data/ anew (long)

Each notebook gets a kernel process of its own, which starts in this folder. Paths mean what they
mean in the folder where the command is typed. With `--out FOLDER` results go there, not to runs/.
"""

import argparse
import ast
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

try:
    import gallery
    import kernels
    import nbformat
    import papermill
    from nbclient.exceptions import CellTimeoutError
    from traitlets.config import Config

    from fixlip.files import atomic, user_path, writable
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: {sys.executable} has no package {missing.name}: run the Python of the environment "
        "that `make figures` builds, .venv/bin/python, or install fixlip[notebooks] into this one"
    )

ROOT = Path(__file__).resolve().parents[1]
PATHS = {  # which parameters of the notebooks hold paths, and to what
    **dict.fromkeys(("model", "models", "compared"), "model"),  # some models are folders
    **dict.fromkeys(("data", "imagenet", "coco"), "folder"),
    "folder": "new folder",
    "image": "image",
    "pretrained": "checkpoint",  # or a tag of open_clip
}


class Job(NamedTuple):
    """One notebook to execute."""

    source: Path
    target: Path  # the executed copy
    figures: Path
    values: dict[str, object]
    timeout: int | None


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
    """Turn `name=value` texts into values of the types of the notebook's defaults.

    Paths among them are taken from the current folder, as in the shell where they were typed.
    """
    known, values = parameters(notebook), {}
    for setting in settings:
        name, _, text = setting.partition("=")
        check(notebook, [name := name.strip()])
        try:
            text.encode()
            values[name] = located(name, _typed(text, known[name]))
        except UnicodeEncodeError:
            raise ValueError(f"{name}: the value is not a text in UTF-8: {text!a}") from None
        except SyntaxError:
            wanted = f"expected {name}=value with a value like {known[name]!r}"
            raise ValueError(f"{setting}: {wanted}") from None
    return values


def _typed(text: str, like: object) -> object:
    """A text as a value of another's type; SyntaxError where it is none."""
    if isinstance(like, str | None):
        return text
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = {"true": True, "false": False}.get(text.strip().lower())
    if isinstance(like, float) and type(value) is int:
        value = float(value)
    elif type(like) is int and isinstance(value, float) and value.is_integer():  # 2e3
        value = int(value)
    elif isinstance(like, list) and isinstance(value, tuple):
        value = list(value)
    if type(value) is not type(like):
        raise SyntaxError
    return value


def located(name: str, value: object) -> object:
    """A parameter's value, with the paths in it as seen from anywhere; others unchanged.

    Raises ValueError where nothing is there.
    """
    kind = PATHS.get(name)
    if isinstance(value, list) and kind:
        return [located(name, one) for one in value]
    if not value or not isinstance(value, str) or not kind:
        return value  # an empty text stands for no path
    if kind == "model":
        head, colon, rest = value.partition(":")
        if head == "local-dir":
            return f"{head}:{_there('folder', rest, 'model')}"
        if colon and head != "hf-hub":  # an architecture and its weights
            return f"{head}:{located('pretrained', rest)}"
        if not Path(value).expanduser().is_dir():
            return value
        from fixlip.encoders.names import FOLDER, known_names  # takes a second

        # a model of that name comes first, as for fixlip.load
        is_folder = known_names(value)[1].startswith(FOLDER)
        return str(_there("folder", value, name)) if is_folder else value
    if kind == "checkpoint" and not (os.path.dirname(value) or Path(value).suffix):
        return value  # a tag, which has no ending
    return str(_there(kind, value, name))


def _there(kind: str, text: str, name: str) -> Path:
    """The absolute path of an existing image, checkpoint or folder."""
    try:
        path = user_path(text).absolute()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if kind != "new folder" and not (path.is_dir() if kind == "folder" else path.is_file()):
        raise ValueError(f"{name}: there is no {kind} {path}")
    return path


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Drop, in place, what differs between two runs without a difference in results."""
    notebook.metadata = {"kernelspec": kernels.SPEC, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)


class Messages:
    """What notebooks write to stderr, such as progress, passed on line by line with their name."""

    def __init__(self, notebook: str) -> None:
        self.notebook = notebook

    def write(self, text: str) -> None:
        """Pass on the lines of a text."""
        for line in filter(str.strip, text.replace("\r", "\n").splitlines()):
            print(f"    {self.notebook}: {line}", file=sys.stderr)

    def flush(self) -> None:
        """Flush what was passed on."""
        sys.stderr.flush()


def execute(job: Job) -> str | None:
    """Execute one notebook, write the executed copy, return None or one line on what failed."""
    with tempfile.TemporaryDirectory() as folder:
        executed, log = Path(folder) / "executed.ipynb", Path(folder) / "kernel.log"
        before, error = {}, None
        try:
            notebook = gallery.read(job.source)
            check(notebook, list(job.values))
            before = gallery.written(job.figures, notebook)
            _papermill(notebook, job, executed, log)
        except papermill.PapermillExecutionError as caught:
            error = f"cell In [{caught.exec_count}]: {caught.ename}: {caught.evalue}"
        except CellTimeoutError:
            error = f"{_reached(executed)} took longer than the {job.timeout} s of --timeout"
        except RuntimeError as caught:  # a dead kernel
            error = f"{caught}, {_reached(executed)}"
            if words := kernels.last_words(log):
                kept = job.target.with_suffix(".log")
                with atomic(kept) as file:
                    file.write(log.read_bytes())
                error += f": {words} (all that it said is in {kept})"
        except Exception as caught:  # not a notebook, no space left
            error = f"{type(caught).__name__}: {caught}"
        finally:  # a failed or interrupted run is kept too: it shows the traceback in its place
            if (result := _result(executed)) is not None:
                normalise(result)
                with atomic(job.target) as file:
                    file.write(f"{nbformat.writes(result)}\n".encode())
        if error is None:
            now = gallery.written(job.figures, result)
            lost = gallery.unseen(result, [k for k in now if now[k] != before.get(k)])
            error = lost and f"figures drawn but not shown, by another backend: {', '.join(lost)}"
    return (error or None) and error.splitlines()[0]


def _papermill(notebook: nbformat.NotebookNode, job: Job, executed: Path, log: Path) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # errors are told here
    papermill.execute_notebook(
        notebook,
        re.sub(r"([{}])", r"\1\1", str(executed)),  # papermill fills in {names}
        parameters=job.values,
        kernel_name=kernels.SPEC["name"],
        language=kernels.SPEC["language"],
        cwd=job.source.parent,
        progress_bar=False,
        execution_timeout=job.timeout,
        coalesce_streams=True,
        stderr_file=Messages(job.source.stem),
        kernel_manager_class=kernels.LoggedKernel,
        config=Config(LoggedKernel={"words": str(log)}),
    )


def _result(executed: Path) -> nbformat.NotebookNode | None:
    """The notebook as far as it was executed, if papermill came to write it whole."""
    try:
        return gallery.read(executed)
    except ValueError:
        return None


def _reached(executed: Path) -> str:
    """Where the execution of a notebook ended."""
    result = _result(executed)
    begun = [
        cell
        for cell in (result.cells if result else ())
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time")
    ]
    return f"cell In [{len(begun)}]" if begun else "before the first cell"


def timed(job: Job) -> tuple[Path, str | None, float]:
    """Execute one notebook: itself, what failed, and the seconds it took."""
    start = time.monotonic()
    try:
        error = execute(job)
    except OSError as caught:  # nothing can be written
        error = str(caught)
    return job.source, error, time.monotonic() - start


def executed(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Path, str | None, float]]:
    """Execute notebooks, so many at the same time, and yield what `timed` says as each ends."""
    if min(workers, len(jobs)) <= 1:
        yield from map(timed, jobs)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    # Ctrl-C reaches all of them, and this process ends the others
    ignore = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    with multiprocessing.get_context("spawn").Pool(workers, **ignore) as pool:
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
        Replace each notebook by its executed copy if every cell succeeded and shows its figures.
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
    jobs = [Job(source, copies / source.name, figures, values or {}, timeout) for source in sources]
    together = f", {workers} at a time" if workers > 1 else ""
    print(f"running {', '.join(source.stem for source in sources)}{together}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kernels.install(Path(folder), figures)
        for number, (source, error, seconds) in enumerate(executed(jobs, workers), start=1):
            state = "FAILED" if error else "ok"
            print(f"[{number}/{len(jobs)}] {source.stem} ... {state}, {seconds:.1f} s", flush=True)
            if error:
                failed.append(source.stem)
                print(f"    {error}", flush=True)
            elif in_place:
                with atomic(source) as file:
                    file.write((copies / source.name).read_bytes())
    if failed:
        print(f"{len(failed)} of {len(sources)} notebooks failed: {', '.join(failed)}")
    return failed


def find(names: Sequence[str]) -> list[Path]:
    """Return the notebooks whose names begin with one of `names`; all of them without names."""
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    known = ", ".join(path.stem for path in paths) or "none"
    chosen = []
    for stem in (Path(name).name.removesuffix(".ipynb") for name in names or [""]):
        whole = [path for path in paths if path.stem == stem]
        matches = whole or [path for path in paths if path.stem.startswith(stem)]
        if not matches:
            raise ValueError(f"no notebook called {stem or 'anything'}; there are {known}")
        chosen += [path for path in matches if path not in chosen]
    return chosen


def results(out: str | None, *also: Path) -> Path:
    """The folder of a command's results, after a look whether it and others can be written to."""
    try:
        folder = (ROOT / "runs" if out is None else user_path(out)).absolute()
        for place in (folder, *also):
            writable(place, "give --out a folder of your own")
    except OSError as error:
        raise ValueError(str(error)) from None
    return folder


def run_apart(source: Path, title: str, settings: Sequence[str], options) -> list[str]:
    """Run one notebook with other parameters, all its results in a new folder of `runs/`."""
    values = parse(gallery.read(source), settings)
    slug = re.sub(r"\W+", "-", title.lower()).strip("-")[:48]
    folder = results(options.out) / f"{datetime.now():%Y%m%d-%H%M%S}-{slug}"
    failed = run([source], folder, figures=folder, values=values, timeout=options.timeout)
    print(f"{'what there is of it' if failed else 'the result'} is in {folder}")
    return failed


def figures(options: argparse.Namespace) -> list[str]:
    """Run the notebooks named into runs/, with a page of their figures."""
    sources = find(options.names)
    if options.set:
        if len(sources) != 1:
            raise ValueError("--set goes with one notebook")
        return run_apart(sources[0], sources[0].stem, options.set, options)
    made = [name for path in sources for name in gallery.places(gallery.read(path))]
    out = results(options.out)
    copies, folder = out / "notebooks", out / "figures"
    page = {"figures": folder, "timeout": options.timeout, "workers": options.workers}
    failed = run(sources, copies, **page)
    page = gallery.write_page(folder, find([]), f"../{copies.name}")
    print(f"all figures: {page}; executed notebooks are in {copies}")
    print(gallery.compare(folder, ROOT / "figures", made))
    return failed


def refresh(options: argparse.Namespace) -> list[str]:
    """Run the notebooks named, and replace the outputs stored in them and the figures."""
    sources, folder = find(options.names), ROOT / "figures"
    copies = results(None, folder, ROOT / "notebooks") / "notebooks"
    how = {"figures": folder, "timeout": options.timeout, "workers": options.workers}
    failed = run(sources, copies, in_place=True, **how)
    print(f"figures are in {folder}, executed notebooks in {sources[0].parent}")
    return failed


def measure(options: argparse.Namespace) -> list[str]:
    """Run notebooks with recompute=True, and put the tables that they measure into data/."""
    sources = [p for p in find(options.names) if "recompute" in parameters(gallery.read(p))]
    if not sources:
        raise ValueError("none of these notebooks has a parameter recompute: nothing to measure")
    failed, folder = [], results(options.out) / "data"
    tables = ROOT / "data" if options.out is None else folder
    results(options.out, tables)
    for source in sources:
        with tempfile.TemporaryDirectory() as made:
            how = {"values": {"recompute": True}, "timeout": options.timeout}
            error = run([source], folder, figures=Path(made), **how)
            for path in sorted(Path(made).glob("data/*.json")) if not error else ():
                with atomic(tables / path.name) as file:
                    file.write(path.read_bytes())
                print(f"    {tables.name}/{path.name}")
        failed += error
    return failed


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def parser() -> argparse.ArgumentParser:
    """The command line: each command with the options that it heeds."""
    form = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    commands = whole.add_subparsers(dest="command", required=True)
    for todo, name in ((figures, "figures"), (refresh, "refresh"), (measure, "data")):
        command = commands.add_parser(name, help=todo.__doc__, description=todo.__doc__)
        help = "notebooks, or how their names begin; default all"
        command.add_argument("names", nargs="*", help=help)
        command.set_defaults(todo=todo)
    for name, command in commands.choices.items():
        help = "seconds that a cell may take; default as long as it likes"
        command.add_argument("--timeout", type=positive, help=help)
        if name == "figures":
            help = "set a parameter"
            command.add_argument(
                "--set", action="append", default=[], metavar="NAME=VALUE", help=help
            )
        if name != "data":
            command.add_argument("--workers", type=positive, default=1, help="notebooks at a time")
        if name != "refresh":
            command.add_argument("--out", metavar="FOLDER", help="for the results; default runs/")
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit status."""
    options = parser().parse_args(arguments)
    try:
        return 1 if options.todo(options) else 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "stopped: notebooks that ended are kept, and what there is of others; a study that has "
            "a folder goes on where it was",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
