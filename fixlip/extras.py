"""What fixlip needs beyond its core, by extra; where it is missing, one sentence says so."""

from __future__ import annotations

import importlib.util

MODULES: dict[str, tuple[str, ...]] = {  # of the optional dependencies in pyproject.toml
    "open_clip": ("open_clip", "timm", "transformers", "torchvision", "huggingface_hub", "PIL"),
    "data": ("pandas", "PIL", "pycocotools", "tqdm"),
    "plots": ("matplotlib", "seaborn", "PIL"),
    "studies": ("pandas", "PIL", "filelock", "tqdm"),
    "peers": ("shapiq",),
}


def need(extra: str, what: str) -> None:
    """Raise ModuleNotFoundError, with the command that mends it, unless an extra is installed.

    Examples
    --------
    >>> need("studies", "a study")
    """
    missing = [name for name in MODULES[extra] if not _is_there(name)]
    if missing:
        names, are = ", ".join(missing), "is" if len(missing) == 1 else "are"
        raise ModuleNotFoundError(
            f"{what} needs {names}, which {are} not installed: pip install 'fixlip[{extra}]'",
            name=missing[0],
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # hidden, as tests do
        return False
