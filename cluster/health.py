"""From when on a node, or one GPU of it, is not well: the limits of the health checks. docs/health.md explains each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ..jobs.errors import Problem, SpecError
from ..jobs.units import UnitError, parse_duration, parse_size


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """The limits. 0 = that check is off; for `spare`: nobody looks for what is on idle GPUs.

    Attributes:
        disk: bytes that must be free where a node keeps workdirs, logs and checkpoints.
        inodes: files that must still fit there.
        memory: bytes of main memory that must be available.
        stall: percent of a minute in which every process waited for memory (the kernel's own figure).
        skew: seconds that a node's clock may differ from the control plane's.
        silent: seconds that a node's agent may leave us without an answer.
        patience: seconds that processes and GPU memory of an ended attempt may take to go, before a GPU is dirty.
        spare: bytes of a GPU's memory that may be in use though no process is on it.
        disks: further folders whose file systems are watched, such as one for checkpoints.
    """

    disk: int = 1 << 30
    inodes: int = 10_000
    memory: int = 512 << 20
    stall: int = 50
    skew: float = 5.0
    silent: float = 60.0
    patience: float = 10.0
    spare: int = 1 << 30
    disks: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As plain values, for the nodes' agents."""
        return {**asdict(self), "disks": list(self.disks)}


_SIZES = frozenset({"disk", "memory", "spare"})
_SECONDS = frozenset({"skew", "silent", "patience"})


def parse_limits(text: str, where: str = "health") -> HealthLimits:
    """The limits of `disk=2GiB,skew=10s,disks=/data:/ckpt`; what is not named keeps its default.

    Args:
        text: NAME=VALUE, separated by commas; sizes and durations with their units, 0 = off.
        where: who gave it, for the message.

    Raises:
        SpecError: names are not known, or values cannot be; carries each of them.
    """
    names = [field.name for field in fields(HealthLimits)]
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if name not in names or not equals:
            hint = f"write NAME=VALUE, with a name of {', '.join(names)}"
            problems.append(Problem(where, 0, 0, "", f"{part[:80]!r} is no limit", hint))
            continue
        try:
            found[name] = _value(name, value)
        except UnitError as error:
            problems.append(Problem(where, 0, 0, name, error.message, error.hint))
    if problems:
        raise SpecError(problems)
    return HealthLimits(**found)


def _value(name: str, value: str) -> Any:  # noqa: ANN401 - as the limit's own type
    if name == "disks":
        paths = tuple(value.split(":"))
        wrong = next((path for path in paths if not path.startswith("/")), None)
        if wrong is not None:
            raise UnitError(f"{wrong[:80]!r} is no absolute path", "write disks=/data:/ckpt")
        return paths
    if value == "0":
        if name == "patience":
            raise UnitError("cannot be 0", "a GPU is given back when it is seen clean; write 1s or more")
        return 0
    if name in _SIZES:
        return parse_size(value)
    if name in _SECONDS:
        return parse_duration(value)
    most = 100 if name == "stall" else 1 << 40
    if not (value.isascii() and value.isdigit() and int(value) <= most):
        raise UnitError(f"cannot be {value[:80]!r}", f"a whole number up to {most}")
    return int(value)
