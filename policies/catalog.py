"""The menu: every named policy on one screen, and how a site's own is found."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from ..jobs.errors import NotFoundError
from .blocking import Earmark, Skip, Strict
from .greedy import Greedy, Policy
from .named import basic, fair
from .order import ORDERS
from .place import PLACERS

CATALOG: dict[str, Callable[[], Policy]] = {
    "fifo": basic.fifo,
    "binpack": basic.binpack,
    "gang": basic.gang,
    "priority": basic.priority,
    "urgent": fair.urgent,
    "cohort": fair.cohort,
    "drf": fair.drf,
    "fair": fair.fair,
    "multifactor": fair.multifactor,
}
"""Name -> a factory whose docstring says the rule."""

DEFAULT = "priority"
"""What a control plane decides by unless told otherwise."""

_BLOCKING = {"strict": Strict, "skip": Skip, "earmark": Earmark}


def load(name: str) -> Policy:
    """The policy that a user names.

    `fifo` and the like; an own composition such as `arrival+best_fit+skip` (order+placement+blocking); the name of an
    entry point in the group `gpusched.policies`; `module:Class`; or `file.py:Class`.

    Raises:
        NotFoundError: no such policy; the message lists what there is.
    """
    if name in CATALOG:
        return CATALOG[name]()
    if name.count("+") == 2:  # noqa: PLR2004 - the three parts of a composition
        return _compose(name)
    for point in entry_points(group="gpusched.policies"):
        if point.name == name:
            return _made(point.load(), name)
    if ":" in name:
        return _made(_imported(name), name)
    raise NotFoundError(
        f"no policy named {name!r}",
        hint=f"one of {', '.join(CATALOG)}; order+placement+blocking such as arrival+best_fit+skip; or file.py:Class",
    )


def _compose(name: str) -> Policy:
    order, place, blocking = name.split("+")
    for part, menu in ((order, ORDERS), (place, PLACERS), (blocking, _BLOCKING)):
        if part not in menu:
            raise NotFoundError(f"policy {name!r}: no {part!r}", hint=f"one of {', '.join(menu)}")
    return Greedy(name, order=ORDERS[order], place=PLACERS[place], blocking=_BLOCKING[blocking]())


def _imported(name: str) -> object:
    source, _, attribute = name.rpartition(":")
    try:
        module = _run_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except Exception as error:  # a user's module may raise anything; it must not take the scheduler down
        raise NotFoundError(f"policy {name!r} could not be loaded: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise NotFoundError(f"policy {name!r}: {source} has no {attribute!r}")
    found: object = getattr(module, attribute)
    return found


def _run_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"gpusched_policy_{path.stem}", path)
    assert spec is not None, "a .py path always has a spec"
    assert spec.loader is not None, "and a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _made(factory: object, name: str) -> Policy:
    """A policy from a class or function, checked for the four names that every policy has."""
    if not callable(factory):
        raise NotFoundError(f"policy {name!r} is no class or function")
    try:
        policy = factory()
    except Exception as error:  # as above: a user's code
        raise NotFoundError(f"policy {name!r} could not be made: {type(error).__name__}: {error}") from error
    missing = [what for what in ("name", "version", "order", "place", "plan") if not hasattr(policy, what)]
    if missing:
        raise NotFoundError(
            f"policy {name!r} lacks {', '.join(missing)}", hint="subclass gpusched.policies.greedy.Greedy"
        )
    made: Policy = policy
    return made
