"""Where a notebook writes its figures and tables; knows nothing else of the repository."""

import os
from pathlib import Path

from fixlip.files import user_path, writable


def root() -> Path:
    """Return the folder of the notebooks' folder: around the current one, else around fixlip.

    It is a checkout, or what ``fixlip notebooks`` copied. Raises FileNotFoundError where neither
    is there.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "notebooks" / "run.py").is_file():
            return folder
    raise FileNotFoundError(
        f"no notebooks of fixlip around {here}: clone the repository, or copy them out with "
        "'fixlip notebooks compendium'; then cd into it"
    )


def output(name: str) -> Path:
    """Return the path at which to write the figure or table `name`; its folder is made.

    `runs/figures/name` in the checkout, which git ignores; `$FIXLIP_OUTPUT/name` where that
    variable is set. Raises OSError where nothing can be written there.

    Examples
    --------
    >>> figure.savefig(output("interactions.pdf"))  # doctest: +SKIP
    """
    folder = os.environ.get("FIXLIP_OUTPUT") or root() / "runs" / "figures"
    path = user_path(folder).absolute() / name
    writable(path.parent, "set FIXLIP_OUTPUT to a folder of your own")
    return path
