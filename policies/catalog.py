"""The menu: every named policy on one screen, and how a site's own is found."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ..jobs.errors import NotFoundError, PolicyError
from . import options
from .backfill import Backfill
from .blocking import Blocking, Earmark, Skip, Strict
from .consolidate import Consolidate
from .greedy import Greedy, Policy
from .named import attained, backfilling, basic, close, fair, shortest
from .named.basic import AGE_LIMIT, binpack, fifo, gang, priority  # noqa: F401 - policy files import them from here
from .orders import ORDERS
from .place import PLACERS, Placer
from .placers import Scored
from .placers.ladder import Ladder
from .reclaim import ByOrder, ByPriority, Reclaim

CATALOG: dict[str, Callable[..., Policy]] = {
    "fifo": basic.fifo,
    "binpack": basic.binpack,
    "gang": basic.gang,
    "easy": backfilling.easy,
    "sjbf": backfilling.sjbf,
    "conservative": backfilling.conservative,
    "sjf": shortest.sjf,
    "srtf": shortest.srtf,
    "srsf": shortest.srsf,
    "smallest": shortest.smallest,
    "qssf": shortest.qssf,
    "las": attained.las,
    "las-2d": attained.las_2d,
    "tiresias": attained.tiresias,
    "tiresias-5h": attained.tiresias_5h,
    "tiresias-16h": attained.tiresias_16h,
    "gittins": attained.gittins,
    "topology": close.topology,
    "ladder": close.ladder,
    "consolidating": close.consolidating,
    "hived": close.hived,
    "priority": basic.priority,
    "urgent": fair.urgent,
    "cohort": fair.cohort,
    "drf": fair.drf,
    "fair": fair.fair,
    "multifactor": fair.multifactor,
}
"""Name -> a factory whose docstring says the rule."""

ALIASES = {"backfill": "easy"}
"""Other names of the same."""

DEFAULT = "priority"
"""What a control plane decides by unless told otherwise."""


def _strict() -> Strict:
    return Strict()


def _skip(*, age_limit: options.Duration = math.inf) -> Skip:
    return Skip(age_limit)


def _earmark() -> Earmark:
    return Earmark()


def _easy(*, depth: float = 1, shortest_first: bool = False) -> Backfill:
    return Backfill(depth, shortest_first)


def _conservative(*, depth: float = math.inf) -> Backfill:
    return Backfill(depth)


_BLOCKING: dict[str, Callable[..., Blocking]] = {
    "strict": _strict,
    "skip": _skip,
    "earmark": _earmark,
    "easy": _easy,
    "conservative": _conservative,
}


_RECLAIM: dict[str, Callable[..., Reclaim]] = {
    "preempt": ByOrder,
    "preempt_lower_priority": ByPriority,
    "consolidate": Consolidate,
}


def load(name: str) -> Policy:
    """The policy that a user names.

    `fifo` and the like, with options as in `easy?depth=2`; an own composition such as `arrival+best_fit+skip`
    (order+placement+blocking) or `srtf?margin=60s+best_fit+skip+preempt` (with a rule for who gives way); the name of
    an entry point in the group `gpusched.policies`; `module:Class`; or `file.py:Class`.

    Raises:
        NotFoundError: no such policy or option; the message lists what there is.
        PolicyError: options that do not go together.
    """
    plain, _ = options.split(name)
    plain = ALIASES.get(plain, plain)
    if plain in CATALOG and "+" not in name:
        policy: Policy = _with_options(name, name, CATALOG[plain])
        if "?" in name:
            policy.name = name
        return policy
    if name.count("+") in {2, 3}:  # the parts of a composition
        return _compose(name)
    for point in entry_points(group="gpusched.policies"):
        if point.name == name:
            return _made(point.load(), name)
    if ":" in name:
        return _made(_imported(name), name)
    if name.endswith(".py"):
        raise NotFoundError(f"policy {name!r} does not say which class of the file", hint=f"write {name}:Class")
    raise NotFoundError(
        f"no policy named {name!r}",
        hint=f"one of {', '.join(CATALOG)}; order+placement+blocking such as arrival+best_fit+skip; or file.py:Class",
    )


def _compose(name: str) -> Policy:
    parts: list[Any] = []
    menus: tuple[Mapping[str, Callable[..., Any]], ...] = (ORDERS, PLACERS, _BLOCKING, _RECLAIM)
    for part, menu in zip(name.split("+"), menus, strict=False):
        plain, _ = options.split(part)
        if plain not in menu:
            raise NotFoundError(f"policy {name!r}: no {plain!r}", hint=f"one of {', '.join(menu)}")
        made = menu[plain]
        parts.append(_placement(name, part, made) if menu is PLACERS else _with_options(name, part, made))
    order, place, blocking, *reclaim = parts
    return Greedy(name, order=order, place=place, blocking=blocking, reclaim=reclaim[0] if reclaim else None)


def _placement(name: str, part: str, placer: Placer) -> Placer:
    """A placement with its options: `fgd?ties=random`, `ladder?node=5m`."""
    if "?" not in part:
        return placer
    made: Placer = _with_options(name, part, placer.varied if isinstance(placer, Scored | Ladder) else lambda: placer)
    return made


def _with_options(name: str, part: str, make: Callable[..., Any]) -> Any:  # noqa: ANN401 - whatever it makes
    """What a factory makes of the options in a part of a name."""
    try:
        return make(**options.read(part, make, of=name))
    except PolicyError as error:
        raise PolicyError(f"policy {name!r}: {error.message}", hint=error.hint) from error


def _imported(name: str) -> object:
    source, _, attribute = name.rpartition(":")
    try:
        module = _run_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except (Exception, SystemExit) as error:  # a user's module may raise anything; it must not take the scheduler down
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
    except (Exception, SystemExit) as error:  # as above: a user's code
        raise NotFoundError(f"policy {name!r} could not be made: {type(error).__name__}: {error}") from error
    missing = [what for what in ("name", "version", "order", "place", "plan") if not hasattr(policy, what)]
    if missing:
        raise NotFoundError(
            f"policy {name!r} lacks {', '.join(missing)}", hint="subclass gpusched.policies.greedy.Greedy"
        )
    made: Policy = policy
    return made
