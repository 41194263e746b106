"""One run of a sweep as a value: what is replayed, on what, under which policy, and the key that it is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ... import __version__
from ...cluster.backend import Node
from .grid import Point

KEY_VERSION = 1
"""Rises when the same inputs would give other results: runs that were kept under the old keys are then made again."""


@dataclass(frozen=True, slots=True)
class TraceInput:
    """A trace, as bytes that every process of a sweep gets: a file may change while a sweep runs.

    Attributes:
        label: its name for people, unique within the sweep.
        source: what the user gave: a path, `-`, or `generate:...`.
        data: the file's content; empty for a made-up trace.
        form: how it is to be read, as `read_trace` takes it.
    """

    label: str
    source: str
    data: bytes = field(default=b"", repr=False)
    form: tuple[tuple[str, Any], ...] = ()

    def identity(self) -> dict[str, Any]:
        """What results depend on. The name is none of it."""
        if not self.data:
            return {"generate": self.source}
        return {"sha256": hashlib.sha256(self.data).hexdigest(), "form": [list(pair) for pair in self.form]}


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """A policy, and the code of one that is a user's own file or module.

    Attributes:
        asked: what the user gave.
        name, version: what the policy says of itself.
        code: the file's content; empty for ours, whose code goes with the version of gpusched.
    """

    asked: str
    name: str
    version: str
    code: bytes = field(default=b"", repr=False)

    def identity(self) -> dict[str, Any]:
        """What results depend on. The folder of a file is none of it."""
        asked = self.asked.rpartition("/")[2] if self.code else self.asked
        code = hashlib.sha256(self.code).hexdigest() if self.code else ""
        return {"asked": asked, "name": self.name, "version": self.version, "code": code}


@dataclass(frozen=True, slots=True)
class Extra:
    """A further input of every run: a profile, a window, or queues.

    Attributes:
        name: for people, such as the file's name.
        value: the profile, the window, or the text of the queue file.
        digest: of what results depend on.
        random: whether it leaves something to chance.
    """

    name: str
    value: Any
    digest: str
    random: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """What all runs of a sweep share, as values that go to every process.

    Attributes:
        traces, clusters, policies: by label.
        estimates: what policies are told, unless it is swept.
        start_up: seconds, unless it is swept; None = as the profile says.
        bootstrap: seconds of the blocks that arrivals are resampled in; None = arrivals are the trace's own.
        bounds: compute lower bounds, once for each trace as it is replayed and each cluster.
        extras: further inputs by name, `profile`, `window` and `queues`.
        per_job: hand over every job of every run too.
    """

    traces: Mapping[str, TraceInput]
    clusters: Mapping[str, Sequence[Node]]
    policies: Mapping[str, PolicyInput] = field(default_factory=dict)
    estimates: str = "exact"
    start_up: float | None = None
    bootstrap: float | None = None
    bounds: bool = False
    extras: Mapping[str, Extra] = field(default_factory=dict)
    per_job: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One run to be made: labels into the setup, a point of the grid, and a seed.

    Attributes:
        seed: what chance depends on; None where nothing is left to chance.
        policy: empty for the lower bounds, which are no policy's.
    """

    trace: str
    cluster: str
    point: Point
    seed: int | None
    policy: str = ""

    def at(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - a swept value, of its key's type
        """The value of a swept key here."""
        return dict(self.point).get(key, default)

    def __str__(self) -> str:
        swept = [f"{key}={value}" for key, value in self.point]
        seed = [f"seed {self.seed}"] if self.seed is not None else []
        return ", ".join([self.policy or "lower bounds", f"{self.trace} on {self.cluster}", *swept, *seed])


class Keys:
    """The names that results are kept under: digests of all that a run depends on.

    These are the trace's bytes, the nodes, the policy's name, version and code, every option, the seed and the version
    of gpusched; not the names of files, nor how many runs go on beside it.
    """

    def __init__(self, setup: Setup) -> None:
        self._traces = {label: trace.identity() for label, trace in setup.traces.items()}
        self._policies = {label: policy.identity() for label, policy in setup.policies.items()}
        self._clusters = {label: _digest([asdict(node) for node in nodes]) for label, nodes in setup.clusters.items()}
        self._shared = {
            "key": KEY_VERSION,
            "gpusched": __version__,
            "estimates": setup.estimates,
            "start_up": setup.start_up,
            "bootstrap": setup.bootstrap,
            "bounds": setup.bounds,
            "extras": {name: extra.digest for name, extra in setup.extras.items()},
        }

    def of(self, case: Case) -> str:
        """The key of a run."""
        return _digest(
            {
                **self._shared,
                "trace": self._traces[case.trace],
                "cluster": self._clusters[case.cluster],
                "policy": self._policies[case.policy] if case.policy else "lower bounds",
                "point": sorted(case.point),
                "seed": case.seed,
            }
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]
