"""A price certificate: the few numbers from which anyone can prove a lower bound on mean JCT again.

A JSON file. All that is multiplied is whole: times in microseconds from the trace's first submission, prices in
thousand-millionths per GPU (a GPU for a second at price p adds p seconds to the sum of completion times).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from ...jobs.errors import CertificateError
from .instance import Group

VERSION = 1
JSON = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is claimed, of which jobs on which cluster, and the prices that prove it.

    Attributes:
        jobs: how many jobs are bounded; digest: of these jobs, `Instance.digest`.
        left_out: `TraceJob.id` of the trace's jobs that are not among them: no idle cluster of these nodes holds them.
        groups: the cluster. rates: speed by GPU type, where the trace's run times are at speed 1.
        edges: where prices change, ascending, in microseconds. Before the first and after the last all is free.
        rows: (groups, prices): a set of groups of nodes, by index, and the price of a GPU among them in each slot, in
            thousand-millionths. A job pays the prices of all rows that hold every group which it may use.
        jct_mean: the bound that is claimed, in seconds.
    """

    jobs: int
    digest: str
    left_out: tuple[int, ...]
    groups: tuple[Group, ...]
    rates: dict[str, float]
    edges: tuple[int, ...]
    rows: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    jct_mean: float

    @property
    def gpus(self) -> int:
        """GPUs of the cluster."""
        return sum(group.nodes * group.gpus for group in self.groups)


def to_json(certificate: Certificate) -> str:
    """The file's text."""
    document: JSON = {
        "gpusched_price_certificate": VERSION,
        "claim": "mean JCT of these jobs on this cluster, in seconds, is at least jct_mean under every schedule, "
        "clairvoyant and preemptive ones too",
        "jct_mean": certificate.jct_mean,
        "jobs": certificate.jobs,
        "jobs_digest": certificate.digest,
        "left_out": list(certificate.left_out),
        "gpus": certificate.gpus,
        "cluster": [group._asdict() | {"labels": dict(group.labels)} for group in certificate.groups],
        "rates": certificate.rates,
        "breakpoints_us": list(certificate.edges),
        "rows": [{"groups": list(groups), "prices_e9": list(prices)} for groups, prices in certificate.rows],
    }
    lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_certificate(path: str, certificate: Certificate) -> None:
    """Store a certificate.

    Raises:
        CertificateError: the file cannot be written.
    """
    try:
        Path(path).write_text(to_json(certificate), "utf-8")
    except OSError as error:
        raise CertificateError(
            f"{path}: cannot be written: {error.strerror or error}", hint="check the path and the disk"
        ) from error


def read_certificate(path: str) -> Certificate:
    """Read a certificate; nothing is believed yet but its form.

    Raises:
        CertificateError: the file cannot be read or is no certificate; names the file and the key.
    """
    try:
        document = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read: {error.strerror or error}", hint="check the path") from error
    except ValueError as error:  # bad JSON and bad UTF-8
        raise CertificateError(f"{path}: is no JSON: {error}", hint=_MAKE) from error
    if not isinstance(document, dict) or "gpusched_price_certificate" not in document:
        raise CertificateError(f"{path}: is no price certificate", hint=_MAKE)
    if (version := document["gpusched_price_certificate"]) != VERSION:
        raise CertificateError(
            f"{path}: is a certificate of version {version!r}, not {VERSION}", hint="use the gpusched that wrote it"
        )
    return _Reader(path, document).certificate()


_MAKE = "`gpusched bound compute TRACE --certificate FILE` writes one"


class _Reader:
    """Takes a document apart, key by key."""

    def __init__(self, path: str, document: JSON) -> None:
        self.path = path
        self.document = document

    def certificate(self) -> Certificate:
        groups = self.take("cluster", _groups, "a list of {nodes, gpus, gpu_type, labels}")
        edges = self.take("breakpoints_us", _ascending, "a list of two or more ascending whole numbers")

        def rows(value: object) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
            found = tuple((_numbers(row["groups"]), _numbers(row["prices_e9"])) for row in _list(value))
            for members, prices in found:
                _must(len(prices) == len(edges) - 1 and all(number < len(groups) for number in members))
                _must(len(set(members)) == len(members))
            return found

        certificate = Certificate(
            jobs=self.take("jobs", _count, "a whole number"),
            digest=self.take("jobs_digest", _text, "a text"),
            left_out=self.take("left_out", _numbers, "a list of whole numbers"),
            groups=groups,
            rates=self.take("rates", _rates, "numbers above 0 by GPU type"),
            edges=edges,
            rows=self.take("rows", rows, "a list of {groups, prices_e9} with a price of 0 or more for each slot"),
            jct_mean=self.take("jct_mean", _positive, "a number of seconds"),
        )
        gpus = self.take("gpus", _count, "a whole number")
        if gpus != certificate.gpus:
            raise CertificateError(
                f"{self.path}: gpus is {gpus:,}, but the nodes of its cluster have {certificate.gpus:,}",
                hint="the file was changed; " + _MAKE,
            )
        return certificate

    def take(self, key: str, read: Callable[[object], T], what: str) -> T:
        try:
            return read(self.document[key])
        except KeyError as error:
            missing = key if error.args == (key,) and key not in self.document else f"{key}: {error.args[0]}"
            raise CertificateError(f"{self.path}: {missing} is missing", hint=_MAKE) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise CertificateError(f"{self.path}: {key} is not {what}", hint=_MAKE) from error


def _must(holds: bool) -> None:  # noqa: FBT001 - a condition
    if not holds:
        raise ValueError


def _list(value: object) -> list[Any]:
    _must(isinstance(value, list))
    return value  # type: ignore[return-value]  # as has just been seen


def _count(value: object) -> int:
    _must(isinstance(value, int) and not isinstance(value, bool) and value >= 0)
    return value  # type: ignore[return-value]  # as has just been seen


def _text(value: object) -> str:
    _must(isinstance(value, str))
    return value  # type: ignore[return-value]  # as has just been seen


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(_count(number) for number in _list(value))


def _ascending(value: object) -> tuple[int, ...]:
    found = _numbers(value)
    _must(len(found) > 1 and all(one < two for one, two in pairwise(found)))
    return found


def _positive(value: object) -> float:
    _must(isinstance(value, int | float) and not isinstance(value, bool))
    number = float(value)  # type: ignore[arg-type]  # as has just been seen
    _must(math.isfinite(number) and number >= 0)
    return number


def _rates(value: object) -> dict[str, float]:
    _must(isinstance(value, dict))
    found = {kind: _positive(rate) for kind, rate in value.items()}  # type: ignore[attr-defined]  # as has just been seen
    _must(all(found.values()))
    return found


def _groups(value: object) -> tuple[Group, ...]:
    return tuple(
        Group(
            _count(group["nodes"]),
            _count(group["gpus"]),
            _text(group["gpu_type"]),
            tuple(sorted((_text(key), _text(label)) for key, label in group["labels"].items())),
        )
        for group in _list(value)
    )
