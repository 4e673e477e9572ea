"""Where a notebook writes its figures and tables; knows nothing else of the repository."""

import os
from pathlib import Path


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
