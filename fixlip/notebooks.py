"""Runs the notebooks of a checkout, and tells them where their figures belong.

`python -m fixlip.notebooks run` executes every notebook, `... explain` the quickstart on an image
and a caption of your own. Nothing else in fixlip imports this file, and papermill is imported only
when something runs, because every notebook imports `output` from here.
"""

import argparse
import ast
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

QUICKSTART = "00_quickstart"
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}


def root() -> Path:
    """Return the root of the checkout: the current folder's, else the one fixlip is imported from.

    Raises
    ------
    FileNotFoundError
        Outside a checkout, for instance when fixlip was installed from a wheel.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "fixlip" / "notebooks.py").is_file() and (folder / "pyproject.toml").is_file():
            return folder
    raise FileNotFoundError(
        f"no checkout of fixlip around {here}: clone the repository, cd into it"
    )


def output(name: str) -> Path:
    """Return the path at which a notebook writes the figure or table `name`; its folder exists.

    That is `figures/name` in the checkout, or `$FIXLIP_OUTPUT/name` where the variable is set: a
    run on other inputs or a test must not overwrite the committed figures.

    Examples
    --------
    >>> figure.savefig(output("interactions.pdf"))  # doctest: +SKIP
    """
    folder = os.environ.get("FIXLIP_OUTPUT")
    path = (Path(folder) if folder else root() / "figures") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def parameters(notebook) -> dict[str, object]:
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


def check(notebook, values: dict[str, object]) -> None:
    """Raise ValueError if `values` sets a parameter that the notebook does not declare."""
    known = parameters(notebook)
    if unknown := sorted(set(values) - set(known)):
        names = ", ".join(known) or "none"
        raise ValueError(f"unknown parameter {', '.join(unknown)}; this notebook has {names}")


def parse(notebook, settings: Sequence[str]) -> dict[str, object]:
    """Turn `name=value` texts into values of the types of the notebook's defaults."""
    known, values = parameters(notebook), {}
    for setting in settings:
        name, _, text = setting.partition("=")
        check(notebook, {name: text})
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


def normalise(notebook) -> None:
    """Drop, in place, what differs between two runs without a difference in results."""
    notebook.metadata = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)


def write(notebook, path: Path) -> None:
    """Write a notebook whole or not at all."""
    import nbformat

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _execute(source: Path, target: Path, values: dict, figures: Path | None, timeout: int):
    """Execute one notebook, write the executed copy, return None or one line on what failed.

    To be called in a process of its own: it changes the environment and the working directory.
    """
    import nbformat
    import papermill
    from ipykernel.kernelspec import write_kernel_spec

    notebook = nbformat.read(source, as_version=4)
    check(notebook, values)
    error = None
    with tempfile.TemporaryDirectory() as folder:
        # A kernel named python3 may be installed for another interpreter: put this one's first.
        write_kernel_spec(Path(folder) / "kernels" / KERNELSPEC["name"])
        search = [folder, *filter(None, [os.environ.get("JUPYTER_PATH")])]
        os.environ["JUPYTER_PATH"] = os.pathsep.join(search)
        os.environ.setdefault("SOURCE_DATE_EPOCH", "0")  # no date in PDFs: same figure, same file
        if figures is not None:
            os.environ["FIXLIP_OUTPUT"] = str(figures.resolve())
        executed = Path(folder) / "executed.ipynb"
        try:
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
        except Exception as caught:  # a dead kernel, a timeout
            error = f"{type(caught).__name__}: {caught}"
        if executed.is_file():  # a failed run is kept too: it shows the traceback in its place
            result = nbformat.read(executed, as_version=4)
            normalise(result)
            write(result, target)
    return error and error.splitlines()[0]


def run(
    sources: Sequence[Path],
    copies: Path,
    *,
    in_place: bool = False,
    values: dict[str, object] | None = None,
    figures: Path | None = None,
    timeout: int = 1800,
) -> list[str]:
    """Execute notebooks one after the other, each in a process of its own.

    The kernel is the interpreter that runs this, and starts in the notebook's folder.

    Parameters
    ----------
    sources : sequence of Path
        The notebooks.
    copies : Path
        Folder for the executed copies.
    in_place : bool
        Replace each notebook by its executed copy if every cell succeeded.
    values : dict, optional
        Parameters to set; every notebook must declare them.
    figures : Path, optional
        Folder for what notebooks write through `output`.
    timeout : int
        Seconds that one cell may take.

    Returns
    -------
    list of str
        Names of the notebooks that failed; the others ran all the same.
    """
    failed = []
    for number, source in enumerate(sources, start=1):
        target = copies / source.name
        print(f"[{number}/{len(sources)}] {source.stem} ... ", end="", flush=True)
        start = time.monotonic()
        # spawn: nothing of this process leaks into the notebook's, on any system
        with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
            job = pool.submit(_execute, source, target, values or {}, figures, timeout)
            try:
                error = job.result()
            except BrokenProcessPool:
                error = "its process was killed, perhaps for want of memory"
            except Exception as caught:  # not a notebook, a wrong parameter
                error = (str(caught) or repr(caught)).splitlines()[0]
        if error:
            failed.append(source.stem)
        elif in_place:
            target.replace(source)
        print(f"{'FAILED' if error else 'ok'}, {time.monotonic() - start:.1f} s", flush=True)
        if error:
            print(f"    {error}", flush=True)
    if failed:
        print(f"{len(failed)} of {len(sources)} notebooks failed: {', '.join(failed)}")
    return failed


def find(names: Sequence[str], folder: Path) -> list[Path]:
    """Return the notebooks of a folder that are called, or start with, one of `names`; or all."""
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"no notebooks in {folder}")
    chosen = []
    for stem in (Path(name).name.removesuffix(".ipynb") for name in names):
        matches = [path for path in paths if path.stem.startswith(stem)]
        if not matches:
            known = ", ".join(path.stem for path in paths)
            raise FileNotFoundError(f"no notebook called {stem}; there are {known}")
        chosen += [path for path in matches if path not in chosen]
    return chosen if names else paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fixlip.notebooks")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds that a cell may take")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("run", help="execute notebooks; figures go to figures/")
    command.add_argument("names", nargs="*", help="names, or how they start (default: all)")
    command.add_argument("--in-place", action="store_true", help="refresh the notebooks themselves")
    about = "set a parameter of one notebook; its results go to a new folder of runs/"
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=about)
    command = commands.add_parser("explain", help=f"run {QUICKSTART} on your image and caption")
    for name in ("image", "caption", "model", "pretrained"):
        command.add_argument(f"--{name}", default="")
    options = parser.parse_args(arguments)
    try:
        return _explain(options) if options.command == "explain" else _run(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    """Run the notebooks asked for: copies to runs/notebooks, figures to figures/."""
    sources = find(options.names, root() / "notebooks")
    if options.set:
        if len(sources) != 1 or options.in_place:
            raise ValueError("--set goes with one notebook, and not with --in-place")
        return _run_apart(sources[0], sources[0].stem, options.set, options.timeout)
    copies = root() / "runs" / "notebooks"
    failed = run(sources, copies, in_place=options.in_place, timeout=options.timeout)
    print(
        f"notebooks in {sources[0].parent if options.in_place else copies}, figures in {output('')}"
    )
    return 1 if failed else 0


def _explain(options: argparse.Namespace) -> int:
    """Run the quickstart on the image and the caption given."""
    if not options.image or not options.caption.strip():
        raise ValueError("explain needs both: --image photo.jpg --caption 'a dog on a sofa'")
    image = Path(options.image).expanduser().resolve()
    if not image.is_file():
        raise FileNotFoundError(f"there is no image {image}")
    settings = [f"image={image}", f"caption={options.caption}"]
    settings += [f"model={options.model}"] if options.model else []
    settings += [f"pretrained={options.pretrained}"] if options.pretrained else []
    source = find([QUICKSTART], root() / "notebooks")[0]
    return _run_apart(source, f"{image.stem}-{options.caption}", settings, options.timeout)


def _run_apart(source: Path, title: str, settings: Sequence[str], timeout: int) -> int:
    """Run one notebook with other parameters, all its results in a new folder of `runs/`."""
    import nbformat

    values = parse(nbformat.read(source, as_version=4), settings)
    slug = re.sub(r"\W+", "-", title.lower()).strip("-")[:48]
    folder = root() / "runs" / f"{datetime.now():%Y%m%d-%H%M%S}-{slug}"
    failed = run([source], folder, values=values, figures=folder, timeout=timeout)
    print(f"{'what there is of it' if failed else 'the result'} is in {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
