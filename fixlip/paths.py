"""Where a notebook writes its figures and tables; knows nothing else of the repository."""

import os
from pathlib import Path

from fixlip.files import user_path, writable


def root() -> Path:
    """Return the root of the checkout: the current folder's, else the one fixlip is imported from.

    Raises FileNotFoundError outside a checkout, for instance where fixlip came as a wheel.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise FileNotFoundError(
        f"no checkout of fixlip around {here}: clone the repository, cd into it"
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
