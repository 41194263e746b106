"""What a job asks for on each of its nodes: accelerators, CPUs, memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from ..units import milli
from .fields import STORED, Cpus, Fault, Part, Size, refuse, refuse_all, shown

MAX_GPUS = 1024
"""GPUs on one node; the largest machines have a few dozen."""

_TYPE = r"[A-Za-z][A-Za-z0-9._-]{0,62}"
_COUNT = r"[0-9]{1,6}(?:\.[0-9]{1,9})?"
ACCELERATOR_PATTERN = rf"^(?:{_TYPE}(?::{_COUNT})?|{_COUNT})$"
_ONE = re.compile(rf"(?:(?P<type>{_TYPE})(?::(?P<count>{_COUNT}))?|(?P<bare>{_COUNT}))")
_ANY = {"gpu", "gpus"}

KNOWN_TYPES = (
    *("A10", "A10G", "A30", "A40", "A100", "A100-40GB", "A100-80GB", "A4000", "A5000", "A6000", "B100", "B200", "B300"),
    *("GB200", "GB300", "GH200", "GTX1080Ti", "H20", "H100", "H200", "K80", "L4", "L40", "L40S", "MI100", "MI210"),
    *("MI250", "MI250X", "MI300A", "MI300X", "MI325X", "MI355X", "P4", "P40", "P100", "RTX3090", "RTX4090", "RTX5090"),
    *("RTX6000", "T4", "V100", "V100-16GB", "V100-32GB"),
)
"""Spellings that are restored, so that `h100` finds an H100. Any other name is taken as it is written."""
_SPELLING = {name.lower(): name for name in KNOWN_TYPES}

_FORM = "write it like H100:8, 8 or 0.5"


class Accelerators(BaseModel):
    """How many GPUs on each node, and of which type.

    Attributes:
        count: GPUs on each node: 0 = none, a whole number, or a fraction below 1 of one shared GPU (three decimals).
        types: types that will do, best first when `ranked`; empty = any.
        ranked: the order of `types` is a preference (a list in the file) rather than a free choice (a mapping).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: float = 0
    types: tuple[str, ...] = ()
    ranked: bool = True

    def to_document(self) -> object:
        """The form in which a file asks for this."""
        count = int(self.count) if self.count >= 1 or not self.count else self.count
        if not self.types:
            return count
        if len(self.types) == 1:
            return f"{self.types[0]}:{count}"
        return [f"{name}:{count}" for name in self.types] if self.ranked else dict.fromkeys(self.types, count)


def _read(value: object, info: ValidationInfo) -> Accelerators:
    if isinstance(value, Accelerators):
        return value
    if info.context == STORED:
        return _stored(Accelerators.model_validate(value))
    if isinstance(value, list | tuple):
        return _choose(((i, *_one(entry)) for i, entry in enumerate(value)), ranked=True)
    if isinstance(value, Mapping | set | frozenset):
        entries = value.items() if isinstance(value, Mapping) else ((entry, None) for entry in sorted(map(str, value)))
        return _choose(((str(key), *_entry(str(key), count)) for key, count in entries), ranked=False)
    name, count = _one(value)
    if isinstance(count, Fault):
        raise refuse_all([count])
    return _request(count, (name,) if name else ())


def _stored(found: Accelerators) -> Accelerators:
    """What the store holds, checked like what a file says: it may have come over the network."""
    if isinstance(fault := _count(found.count), Fault):
        raise refuse_all([fault])
    if odd := [name for name in found.types if not re.fullmatch(_TYPE, name)]:
        raise refuse(f"`{shown(odd[0])}` is no accelerator type")
    return found


def _choose(entries: Iterable[tuple[str | int, str, float | Fault]], *, ranked: bool) -> Accelerators:
    """Several alternatives as one request: typed, each once, with one count."""
    faults: list[Fault] = []
    counts: dict[str, float] = {}
    total = 0
    for place, name, count in entries:
        total += 1
        if isinstance(count, Fault):
            faults.append(count._replace(at=(place,)))
        elif name in counts:
            faults.append(Fault(f"{name} is named twice", "keep one of them", (place,)))
        elif counts and count != (first := next(iter(counts.values()))):
            faults.append(
                Fault(f"asks for {count:g} where the first asks for {first:g}", "one count for all", (place,))
            )
        else:
            counts[name] = count
    if not total:
        raise refuse("names no accelerator", "write 0 for none")
    if not faults and "" in counts and len(counts) > 1:
        faults.append(Fault("a GPU of any type stands beside named types", "name the types, or write the count alone"))
    if faults:
        raise refuse_all(faults)
    types = tuple(filter(None, counts))
    return _request(next(iter(counts.values())), types, ranked=ranked)


def _request(count: float, types: tuple[str, ...], *, ranked: bool = True) -> Accelerators:
    """One form for what means the same: no GPUs have no type, and a single type no order."""
    types = types if count else ()
    return Accelerators(count=count, types=types, ranked=ranked or len(types) < 2)  # noqa: PLR2004 - one has no order


def _entry(key: str, count: object) -> tuple[str, float | Fault]:
    """One entry of a mapping: `H100: 8`, or the member `H100:8` of a set."""
    if count is None:
        return _one(key)
    if not re.fullmatch(_TYPE, key):
        return "", Fault(f"`{shown(key)}` is no accelerator type", "write it like `H100: 8`", on_key=True)
    if isinstance(count, str) and re.fullmatch(_COUNT, count):
        count = float(count)
    return _type(key), _count(count)


def _one(value: object) -> tuple[str, float | Fault]:
    """Type ("" = any) and count of `H100:8`, `H100`, `GPU:2`, `8` or `0.5`."""
    if not isinstance(value, str):
        return "", _count(value)
    match = _ONE.fullmatch(value.replace(" ", ""))
    if match is None:
        return "", Fault(f"`{shown(value)}` is no accelerator", _hint(value))
    count = match["count"] or match["bare"] or "1"
    return _type(match["type"] or "gpu"), _count(float(count))


def _type(name: str) -> str:
    return "" if name.lower() in _ANY else _SPELLING.get(name.lower(), name)


def _hint(text: str) -> str:
    if re.fullmatch(rf"\s*{_COUNT}\s*[:x]\s*{_TYPE}\s*", text):
        count, _, name = text.replace(" ", "").replace("x", ":", 1).partition(":")
        return f"did you mean `{name}:{count}`?"
    if "," in text:
        return f"write a list: [{text}]"
    if text.count(":") > 1:
        return "type and count only, such as H100:8; choose memory sizes by type or `labels`"
    return _FORM


def _count(value: object) -> float | Fault:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Fault(f"must be a number of GPUs, not {shown(value)}", _FORM)
    if not 0 <= value <= MAX_GPUS:
        return Fault(f"must be from 0 to {MAX_GPUS:,} GPUs on each node, not {shown(value)}")
    if value > 1 and value != int(value):
        return Fault(f"{value:g} GPUs is neither whole nor a fraction of one", "write a whole number, or less than 1")
    thousandths = milli(value)
    if thousandths is None or (value and not thousandths):
        return Fault(f"{value:g} of a GPU is too fine", "a thousandth of a GPU (0.001) is the smallest step")
    return thousandths / 1000


_ENTRY = {"type": "string", "pattern": ACCELERATOR_PATTERN}
_NUMBER = {
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_GPUS}, {"type": "number", "minimum": 0, "maximum": 1}]
}
_ACCELERATORS_SCHEMA = {
    "anyOf": [
        *_NUMBER["anyOf"],
        _ENTRY,
        {"type": "array", "minItems": 1, "items": {"anyOf": [*_NUMBER["anyOf"], _ENTRY]}},
        {
            "type": "object",
            "minProperties": 1,
            "propertyNames": _ENTRY,
            "additionalProperties": {"anyOf": [*_NUMBER["anyOf"], {"type": "null"}]},
        },
    ]
}


class Resources(Part):
    """What each node of the job needs. Whatever is left out is not reserved, except one CPU."""

    accelerators: Annotated[Accelerators, BeforeValidator(_read), WithJsonSchema(_ACCELERATORS_SCHEMA)] = Field(
        default=Accelerators(),
        description=(
            "GPUs on each node: `TYPE:COUNT`, `COUNT` (any type), a fraction such as 0.5 of one shared GPU, a list of"
            " alternatives in order of preference, or a mapping of alternatives in any order. Every alternative has the"
            " same count. Left out: 1 for kind train, inference and service, none for kind command."
        ),
        examples=["H100:8", 8, "A100:0.5", 0, ["H100:8", "A100:8"], {"L4": 1, "T4": 1}],
    )
    cpus: Cpus = Field(
        default=1.0,
        description="CPUs on each node; thousandths as `500m`. `8+` (at least 8) reserves 8.",
        examples=[8, "8+", 0.5, "500m"],
    )
    memory: Size = Field(
        default=0,
        description=(
            "Memory on each node, with a unit: GB is 10^9 bytes, GiB is 2^30. `64GB+` reserves 64GB. Left out: none is"
            " reserved."
        ),
        examples=["64GB", "64GiB", "512MB", "64GB+"],
    )
