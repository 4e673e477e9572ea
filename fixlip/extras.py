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


def need(what: str, *extras: str) -> None:
    """Raise ModuleNotFoundError, with the command that mends it, unless all extras are installed.

    Examples
    --------
    >>> need("a study", "studies")
    """
    missing = {extra: [name for name in MODULES[extra] if not _is_there(name)] for extra in extras}
    modules = list(dict.fromkeys(name for names in missing.values() for name in names))
    if modules:
        names, are = ", ".join(modules), "is" if len(modules) == 1 else "are"
        wanted = ",".join(extra for extra in extras if missing[extra])
        raise ModuleNotFoundError(
            f"{what} needs {names}, which {are} not installed: pip install 'fixlip[{wanted}]'",
            name=modules[0],
        )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # hidden, as tests do
        return False
