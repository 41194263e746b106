"""Who holds which GPUs when, read from a journal, and the integrals over time that reports are made of.

Everything here is integrated at the events themselves, never sampled, in one pass over the journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from operator import itemgetter
from typing import NamedTuple

from ...cluster.backend import Node
from ...jobs.events import Event, Kind
from ...jobs.job import Piece, Placement

FINAL_ENDS = frozenset({Kind.SUCCEEDED, Kind.FAILED, Kind.STOPPED, Kind.TIMED_OUT, Kind.LOST})
"""Events by which an attempt ends and its job with it."""
BACK_TO_QUEUE = frozenset({Kind.RETRIED, Kind.REQUEUED, Kind.REFUSED})
"""Events by which an attempt ends while its job waits for another turn."""

GPU = 1000
"""Thousandths in a GPU."""
SIZES = (1, 2, 4, 8)
"""Sizes k of the gang variant of fragmentation: a piece of k GPUs needs k idle ones in one node."""


class Change(NamedTuple):
    """A moment at which GPUs change hands or a job leaves the queue.

    Attributes:
        time: seconds on the run's clock.
        kind: PLACED takes the pieces; CANCELLED leaves the queue and holds none; all others give the pieces back.
        job: the job's id.
        pieces: what is taken or given back.
    """

    time: float
    kind: Kind
    job: int
    pieces: Placement


def in_order(journal: Sequence[Event]) -> Sequence[Event]:
    """The journal by time; events of one instant keep their order. A journal that is in order is not copied."""
    time = itemgetter(0)
    if all(earlier <= later for earlier, later in pairwise(map(time, journal))):
        return journal
    return sorted(journal, key=time)


def changes(journal: Iterable[Event]) -> Iterator[Change]:
    """The moments at which GPUs change hands, from events in order of time.

    An end of something that holds nothing (a late report, a job placed before the journal begins) changes nothing.

    Raises:
        AssertionError: a job is placed while it holds GPUs.
    """
    held: dict[int, Placement] = {}
    placed, cancelled = Kind.PLACED, Kind.CANCELLED
    ends = FINAL_ENDS | BACK_TO_QUEUE
    for time, kind, job, _, data in journal:
        if kind is placed:
            assert job not in held, f"job {job} is placed at {time} while it holds GPUs"
            pieces = held[job] = _pieces(data)
            yield Change(time, kind, job, pieces)
        elif kind in ends:
            given_back = held.pop(job, None)
            if given_back is not None:
                yield Change(time, kind, job, given_back)
        elif kind is cancelled and job not in held:
            yield Change(time, kind, job, ())


def _pieces(data: object) -> Placement:
    """The placement in the details of a PLACED event: the engine's own tuple, or as JSON gives it back."""
    if isinstance(data, tuple):
        return data
    assert isinstance(data, dict), f"a placed event without its pieces: {data!r}"
    return tuple(Piece(*piece) for piece in data["pieces"])


@dataclass(frozen=True, slots=True)
class Integrals:
    """What an occupied cluster adds up to over a span of time.

    Attributes:
        span: seconds from start to end.
        capacity: GPUs of the cluster.
        allocated: GPU-seconds held by jobs.
        stranded: for each size k that some node of the cluster could host when empty, the share of idle GPUs that are
            in nodes which cannot host k now, averaged over the span (0 while nothing is idle).
        left: jobs that were cancelled while they held nothing.
    """

    span: float
    capacity: int
    allocated: float
    stranded: dict[int, float]
    left: int


class IdleGPUs:
    """The idle GPUs of a cluster, node by node, as jobs take them and give them back.

    A fraction of a GPU counts as the fraction; the rest of a shared GPU is idle but hosts no whole-GPU piece.

    Attributes:
        total: thousandths of a GPU that are idle in the whole cluster.
        sizes: those of SIZES that some node could host when empty.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._whole = [node.gpus for node in nodes]  # wholly idle GPUs by node
        self._idle = [GPU * node.gpus for node in nodes]  # idle thousandths by node
        self._by_whole = [0] * (max(self._whole, default=0) + 1)  # idle thousandths, by their node's wholly idle GPUs
        for gpus in self._whole:
            self._by_whole[gpus] += GPU * gpus
        self._shared: dict[tuple[int, int], int] = {}  # thousandths in use, by (node, slot)
        self.total = GPU * sum(self._whole)
        self.sizes = [k for k in SIZES if k < len(self._by_whole)]

    def change(self, pieces: Placement, *, taken: bool) -> None:
        """Take the pieces, or give them back.

        Raises:
            AssertionError: a node or a shared GPU then holds more than it has.
        """
        sign = 1 if taken else -1
        for node, gpus, milli, slot in pieces:
            self._by_whole[self._whole[node]] -= self._idle[node]
            self._idle[node] -= sign * (GPU * gpus + milli)
            self._whole[node] -= sign * gpus
            self.total -= sign * (GPU * gpus + milli)
            if milli:
                before = self._shared.get((node, slot), 0)
                after = self._shared[node, slot] = before + sign * milli
                assert 0 <= after <= GPU, f"GPU {slot} of {self._nodes[node].name} is shared beyond its capacity"
                self._whole[node] -= (after > 0) - (before > 0)
            assert self._whole[node] >= 0, f"{self._nodes[node].name} is over its capacity"
            self._by_whole[self._whole[node]] += self._idle[node]

    def stranded(self) -> list[int]:
        """For each of `sizes` the idle thousandths in nodes that cannot host a piece of so many whole GPUs."""
        total = before = 0
        found = []
        for k in self.sizes:
            total += sum(self._by_whole[before:k])
            before = k
            found.append(total)
        return found


def integrate(cluster: Sequence[Node], journal: Iterable[Event], start: float, end: float) -> Integrals:
    """Integrate what `journal` (events in order of time) does to an empty `cluster` from `start` to `end`.

    What happens before `start` or after `end` changes who holds what, and is in no integral. One pass; memory grows
    with the nodes and the jobs that run at once, not with the journal.

    Raises:
        AssertionError: more GPUs are held in a node than it has.
    """
    idle = IdleGPUs(cluster)
    capacity = sum(node.gpus for node in cluster)
    idle_time = 0.0
    stranded = [0.0] * len(idle.sizes)
    left = 0
    last = start
    closing = Change(end, Kind.CANCELLED, 0, ())  # so that what follows the last change is counted as well
    for happened, kind, _, pieces in chain(changes(journal), (closing,)):
        time = min(end, happened)
        if time > last:
            idle_time += idle.total * (time - last)
            if idle.total:
                weight = (time - last) / idle.total
                for i, amount in enumerate(idle.stranded()):
                    stranded[i] += amount * weight
            last = time
        left += kind is Kind.CANCELLED
        idle.change(pieces, taken=kind is Kind.PLACED)
    span = end - start
    return Integrals(
        span=span,
        capacity=capacity,
        allocated=capacity * span - idle_time / GPU,
        stranded={k: share / span if span > 0 else 0.0 for k, share in zip(idle.sizes, stranded, strict=True)},
        left=left - 1,
    )
