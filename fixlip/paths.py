"""Where a notebook writes its figures and tables; knows nothing else of the repository."""

import os
from pathlib import Path


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

    `figures/name` in the checkout; `$FIXLIP_OUTPUT/name` where that variable is set, so that a test
    or a run on other inputs does not overwrite the committed figures.

    Examples
    --------
    >>> figure.savefig(output("interactions.pdf"))  # doctest: +SKIP
    """
    folder = os.environ.get("FIXLIP_OUTPUT")
    path = (Path(folder) if folder else root() / "figures") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
