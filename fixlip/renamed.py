"""Old names of modules, of their parts and of keywords: one error that says the new one."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from typing import NoReturn, TypeVar

Function = TypeVar("Function", bound=Callable)

SAME: dict[str, tuple[str, ...]] = {  # modules that kept their names, by the room they are in now
    "encoders": ("captions", "players", "sides"),
    "explainers": ("methods",),
    "explanation": ("subsets",),
    "games": ("exact", "gamefit"),
    "solver": ("leastsquares", "product"),
    "studies": ("fingerprints", "store"),
}
MODULES = {f"fixlip.{name}": f"fixlip.{room}.{name}" for room in SAME for name in SAME[room]} | {
    "fixlip.comparison": "fixlip.metrics.comparison, where Estimate is WithError",
    "fixlip.data.captions": "fixlip.demo.grammar",
    "fixlip.data.drawing": "fixlip.demo.drawing",
    "fixlip.data.scenes": "fixlip.demo.scenes",
    "fixlip.data.tokenizers": "fixlip.demo.tokenizers",
    "fixlip.data.train": "the program data/demo_models/train.py of the repository",
    "fixlip.data.evaluate": "the program data/demo_models/evaluate.py of the repository",
    "fixlip.estimators": "fixlip.estimate",
    "fixlip.explainers.attention": "fixlip.encoders.attention",
    "fixlip.explainers.banzhaf": "fixlip.fit, whose factors fixlip.pair pairs",
    "fixlip.explainers.boxes": "fixlip.encoders.spans",
    "fixlip.explainers.game": "fixlip.explainers.generic_attention",
    "fixlip.explainers.heads": "fixlip.encoders.towers",
    "fixlip.explainers.layers": "fixlip.encoders.opened",
    "fixlip.explainers.maps": "fixlip.Factor and fixlip.pair; all methods give an Explanation",
    "fixlip.explainers.values": "fixlip.estimate and fixlip.solve with order=1",
    "fixlip.game": "fixlip.games",
    "fixlip.models": "fixlip.encoders.loading, where Recipe is Preparation",
    "fixlip.pair": "fixlip.explain; fixlip.pair is a function now",
    "fixlip.passes": "fixlip.encoders.masking",
    "fixlip.pictures": "fixlip.images",
    "fixlip.sidefit": "fixlip.solver.polynomial, where Side is Design",
    "fixlip.sources": "fixlip.studies.fingerprints",
    "fixlip.spread": "fixlip.budget.variance",
    "fixlip.towers": "fixlip.encoders.demo_towers",
    "fixlip.vectorfit": "fixlip.solver.product",
}
NAMES = {
    "fixlip.solve_dense": "fixlip.solver.solve_dense",
    "fixlip.split_budget": "fixlip.sampler.split_budget",
    "fixlip.explainers.exclip.explain": "fixlip.pair(exclip.factor(image), exclip.factor(text))",
    "fixlip.explainers.icam.explain": "fixlip.pair(icam.factor(image), icam.factor(text))",
    "fixlip.explainers.itsm.explain": "fixlip.pair(itsm.factor(image), itsm.factor(text))",
    "fixlip.explainers.integrated.Path": "fixlip.explainers.integrated.Line",
    "fixlip.sampler.METHODS": "fixlip.sampler.SAMPLINGS",
    "fixlip.sampler.check_masks": "fixlip.checks.boolean_masks",
    "fixlip.sampler.check_p": "fixlip.checks.probability",
    "fixlip.sampler.extend": "fixlip.budget.grow.grow",
}


class RenamedModules(MetaPathFinder):
    """Stands last on ``sys.meta_path``: is asked only for modules that were not found."""

    @classmethod
    def install(cls) -> None:
        """Put it there, once."""
        if not any(isinstance(finder, cls) for finder in sys.meta_path):
            sys.meta_path.append(cls())

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Raise for a module that has another name now."""
        if fullname in MODULES:
            # no ModuleNotFoundError: `from fixlip import ...` would hide it
            raise ImportError(f"{fullname} is now {MODULES[fullname]}", name=fullname)


def attribute(module: str, name: str) -> NoReturn:
    """Raise for a name that a module does not have, and say what it is called now."""
    new = NAMES.get(f"{module}.{name}")
    if new:
        raise AttributeError(f"{module}.{name} is now {new}")
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def watch(module: str) -> None:
    """Give a module a ``__getattr__`` that knows its old names.

    It is not defined in the module, where type checkers would take any name for right.
    """
    sys.modules[module].__getattr__ = functools.partial(attribute, module)


def keywords(**new: str) -> Callable[[Function], Function]:
    """Decorate a function whose keywords had other names: ``keywords(method="sampling")``."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*arguments, **options):
            for old in new.keys() & options.keys():
                raise TypeError(f"{function.__name__}() takes {new[old]}= in place of {old}=")
            return function(*arguments, **options)

        return call

    return decorate
