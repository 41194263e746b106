"""The ledger of what is free where: one mutable pool, on which a policy may try and everything tried is undone.

Nodes are numbered by their place in the pool, and sets of nodes are integers used as bit sets (bit i = node i): the
lowest-numbered node with k GPUs free is a few operations on whole words, at 50 nodes and at 10,000. Nodes are kept
bucketed by whole GPUs free. A GPU that is shared is "open": it leaves the whole GPUs and becomes a slot of its
node with so many thousandths free, until the last sharer leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

from ..jobs.errors import PlanError
from ..jobs.job import Piece, Placement, Shape, TopologyWish
from . import holding
from .backend import Node
from .topology import LEVELS, Topology

WHOLE = holding.WHOLE
"""Thousandths of a GPU in a GPU."""

_Asked = tuple[tuple[str, ...], tuple[tuple[str, str], ...], TopologyWish | None]
"""What of a shape says where it may go: GPU types, labels, topology."""


_Log = list[tuple[Shape, Placement, bool]]
"""What a trial did: (shape, placement, whether it was taken; else it left)."""


_TRAIL = 10_000


def bits(nodes: int) -> Iterator[int]:
    """The numbers in a bit set, lowest first."""
    while nodes:
        low = nodes & -nodes
        yield low.bit_length() - 1
        nodes ^= low


_SIZES = 16
"""Sizes of pieces that are counted from the first; larger ones are when they come. Any node may claim to be huge."""


class Pool:
    """What is free on every node, kept exact as gangs come and go.

    Attributes:
        nodes: every node ever seen, by number; one that left keeps its number.
        free: whole GPUs free, by node. cpu (thousandths) and memory (bytes): the same.
        open: thousandths free of each shared GPU, by node: {slot: free}.
        buckets: buckets[f] = schedulable nodes with exactly f whole GPUs free.
        sharing: schedulable nodes with an open GPU.
        sizes_held: on each node, how many pieces of so many whole GPUs there are, by that number.
        trail: every placement taken or given back since whoever asked for it (by setting it to a list) last emptied it;
            None = nobody did, or more happened than it keeps.
        up: schedulable nodes; present: all nodes that are there.
        sizes: schedulable nodes by how many GPUs they have.
        free_gpus: whole GPUs free on schedulable nodes.
        growth: rises whenever capacity may have grown. Between two rises free GPUs only shrink, so what did not fit
            need not be tried again.
        layout: rises whenever a node came, went or changed.
        levels: the node labels that make the levels of the topology, the widest first.
    """

    def __init__(self, nodes: Iterable[Node] = (), levels: Sequence[str] = LEVELS) -> None:
        self.levels = tuple(levels)
        self.nodes: list[Node] = []
        self.free: list[int] = []
        self.cpu: list[int] = []
        self.memory: list[int] = []
        self.open: list[dict[int, int]] = []
        self.sizes_held: list[list[int]] = []
        self.trail: list[Placement] | None = None
        self.buckets: list[int] = [0]
        self.sharing = 0
        self.up = 0
        self.present = 0
        self.sizes: dict[int, int] = {}
        self.free_gpus = 0
        self.growth = 0
        self.layout = 0
        self._bit: list[int] = []  # 1 << n while node n is schedulable, else 0: then bucket updates do nothing
        self._index: dict[str, int] = {}
        self._allowed: dict[_Asked, tuple[int, ...]] = {}
        self._allowed_to: dict[Shape, tuple[int, ...]] = {}  # the same once more, without making what was asked
        self._reach: dict[Shape, int] = {}
        self._topology: Topology | None = None
        self._largest = 0  # GPUs of the largest schedulable node
        self._capacity: tuple[float, float, float] | None = None
        self._idle: dict[bool, Pool] = {}  # see `idle`
        self._log: _Log | None = None
        for node in nodes:
            self.put(node)

    # Nodes ------------------------------------------------------------------------------------------------------

    def put(self, node: Node) -> int:
        """Add a node, or change it; its number. What it holds stays taken."""
        number = self._index.get(node.name)
        if number is None:
            number = len(self.nodes)
            self._index[node.name] = number
            self.nodes.append(node)
            self.free.append(node.gpus)
            self.cpu.append(node.cpu_milli)
            self.memory.append(node.memory)
            self.open.append({})
            self.sizes_held.append([0] * (min(node.gpus, _SIZES) + 1))
            self._bit.append(0)
        else:
            self._hide(number)
            old = self.nodes[number]
            self.free[number] += node.gpus - old.gpus
            self.cpu[number] += node.cpu_milli - old.cpu_milli
            self.memory[number] += node.memory - old.memory
            self.nodes[number] = node
        self.present |= 1 << number
        if node.schedulable and self.free[number] >= 0:
            self._show(number)
        self._relaid()
        self.growth += 1
        for closed, idle in self._idle.items():
            idle.put(replace(node, schedulable=True) if closed else node)
        return number

    def drop(self, name: str) -> int:
        """A node left. It keeps its number, and what it holds stays on the books until it is given back."""
        number = self._index[name]
        self._hide(number)
        self.present &= ~(1 << number)
        self._relaid()
        for idle in self._idle.values():
            idle.drop(name)
        return number

    def _relaid(self) -> None:
        self.layout += 1
        self._allowed.clear()
        self._allowed_to.clear()
        self._reach.clear()
        self._topology = None
        self._capacity = None
        self._largest = max((gpus for gpus, there in self.sizes.items() if there), default=0)

    def use_levels(self, levels: Sequence[str]) -> None:
        """These node labels are the levels of the topology from now on, the widest first."""
        if self.levels != tuple(levels):
            self.levels = tuple(levels)
            self._relaid()
            self._idle.clear()

    def number(self, name: str) -> int | None:
        """The number of a node by its name; None = never seen."""
        return self._index.get(name)

    def _show(self, number: int) -> None:
        bit = 1 << number
        free, gpus = self.free[number], self.nodes[number].gpus
        while len(self.buckets) <= max(free, gpus):
            self.buckets.append(0)
        self._bit[number] = bit
        self.buckets[free] |= bit
        self.up |= bit
        self.sizes[gpus] = self.sizes.get(gpus, 0) | bit
        self.free_gpus += free
        if self.open[number]:
            self.sharing |= bit

    def _hide(self, number: int) -> None:
        bit = self._bit[number]
        if not bit:
            return
        self._bit[number] = 0
        self.buckets[self.free[number]] ^= bit
        self.up ^= bit
        self.sharing &= ~bit
        self.sizes[self.nodes[number].gpus] ^= bit
        self.free_gpus -= self.free[number]

    def idle(self, *, closed: bool = True) -> Pool:
        """The same nodes, empty: for "could this ever fit here?". Built once and kept; take nothing for good from it.

        Args:
            closed: also those that are there and take no work now, as if they did.
        """
        found = self._idle.get(closed)
        if found is None:
            found = self._idle[closed] = Pool(levels=self.levels)
            for number, node in enumerate(self.nodes):
                found.put(replace(node, schedulable=True) if closed else node)
                if not self.present >> number & 1:
                    found.drop(node.name)
        return found

    def copy(self) -> Pool:
        """A pool of its own in the same state, to let time run in. What happens to one does not reach the other."""
        twin = copy(self)
        for name in ("nodes", "free", "cpu", "memory", "buckets", "_bit"):
            setattr(twin, name, list(getattr(self, name)))
        twin.sizes_held = [list(held) for held in self.sizes_held]
        for name in ("sizes", "_index", "_allowed", "_allowed_to", "_reach"):
            setattr(twin, name, dict(getattr(self, name)))
        twin.open = [dict(slots) if slots else {} for slots in self.open]
        twin.trail = twin._log = None  # noqa: SLF001 - of this class
        twin._idle = {}  # noqa: SLF001 - of this class
        return twin

    # Who may go where -------------------------------------------------------------------------------------------

    def allowed(self, shape: Shape) -> tuple[int, ...]:
        """Schedulable nodes that the shape's wishes allow: one set a GPU type, the preferred first.

        A gang stays within one set: its workers run in step, so two types would run at the pace of the slower. One that
        has to lie below one domain of the topology has a set for each type and domain.
        """
        known = self._allowed_to.get(shape)
        if known is not None:
            return known
        asked = (shape.gpu_types, shape.labels, shape.topology)
        found = self._allowed.get(asked)
        if found is None:
            found = tuple([self._matching(kind, shape.labels) for kind in shape.gpu_types or ("",)])
            if shape.topology is not None and shape.topology.mode == "required":
                domains = self.topology().domains(shape.topology.level)
                cut = [nodes & domain.nodes for nodes in found for domain in domains]
                found = tuple([nodes for nodes in cut if nodes])
            self._allowed[asked] = found
        if shape.avoid:
            found = self._elsewhere(shape, found)
        if shape.closing:
            cut = [nodes & ~shape.closing for nodes in found]
            required = shape.topology is not None and shape.topology.mode == "required"
            found = tuple([nodes for nodes in cut if nodes] if required else cut)
        self._allowed_to[shape] = found
        return found

    def _elsewhere(self, shape: Shape, sets: tuple[int, ...]) -> tuple[int, ...]:
        """These sets without the nodes that the shape avoids, as far as they could hold it; else as they are."""
        avoided = self.avoided(shape)
        left = [nodes & ~avoided for nodes in sets]
        kept = [nodes for nodes in left if holding.could_hold(shape, [self.nodes[number] for number in bits(nodes)])]
        return tuple(kept) or sets

    def avoided(self, shape: Shape) -> int:
        """The schedulable nodes that the shape would rather not have, whether that can be or not."""
        numbers = (self._index.get(name) for name in shape.avoid)
        return sum(1 << number for number in numbers if number is not None) & self.up

    def reach(self, shape: Shape) -> int:
        """All nodes that `allowed` names, as one set."""
        found = self._reach.get(shape)
        if found is None:
            found = 0
            for nodes in self.allowed(shape):
                found |= nodes
            self._reach[shape] = found
        return found

    def topology(self) -> Topology:
        """Which nodes lie together, by their labels. Made once a layout."""
        if self._topology is None:
            self._topology = Topology(self.nodes, self.present, self.levels)
        return self._topology

    def _matching(self, gpu_type: str, labels: tuple[tuple[str, str], ...]) -> int:
        found = 0
        for number in bits(self.up):
            node = self.nodes[number]
            if gpu_type and node.gpu_type.lower() != gpu_type.lower():
                continue
            if all(node.labels.get(name) == value for name, value in labels):
                found |= 1 << number
        return found

    def node_size(self, nodes: int) -> int:
        """The most GPUs that one of these nodes has, in use or not."""
        if nodes == self.up:
            return self._largest
        return max((gpus for gpus, there in self.sizes.items() if there & nodes), default=0)

    def capacity(self) -> tuple[float, float, float]:
        """GPUs, thousandths of CPUs and bytes of all schedulable nodes, in use or not."""
        if self._capacity is None:
            there = [self.nodes[number] for number in bits(self.up)]
            self._capacity = (
                float(sum(node.gpus for node in there)),
                float(sum(node.cpu_milli for node in there)),
                float(sum(node.memory for node in there)),
            )
        return self._capacity

    def free_on(self, nodes: int) -> int:
        """Whole GPUs free on these nodes."""
        if nodes == self.up:
            return self.free_gpus
        return sum(free * (bucket & nodes).bit_count() for free, bucket in enumerate(self.buckets) if free)

    def largest_on(self, nodes: int) -> int:
        """The most whole GPUs free on one of these nodes."""
        buckets = self.buckets
        for free in range(len(buckets) - 1, 0, -1):
            if buckets[free] & nodes:
                return free
        return 0

    # Taking and giving back -------------------------------------------------------------------------------------

    def take(self, shape: Shape, placement: Placement) -> None:
        """Put a gang on its nodes.

        Raises:
            PlanError: a node lacks what the gang asks for. Nothing was taken.
        """
        plain, taken = shape.plain, -1
        all_free, all_bits, buckets, held = self.free, self._bit, self.buckets, self.sizes_held
        for piece in placement:
            taken += 1
            number, gpus, milli, slot = piece
            free, bit = all_free[number], all_bits[number]
            if (
                (not self._slot_fits(number, milli, slot) if milli else gpus > free)
                or not (plain or self._room(number, shape, piece))
                or not (bit or self.present >> number & 1)
            ):
                self._return(shape, placement[:taken])
                raise PlanError(
                    f"{shape} does not fit node {self.nodes[number].name} as planned: it needs "
                    f"{milli / WHOLE if milli else gpus:g} GPUs there, {free} are free"
                )
            if milli:
                self._open_slot(number, milli, slot)
            else:
                if bit:
                    buckets[free] ^= bit
                    buckets[free - gpus] ^= bit
                    self.free_gpus -= gpus
                all_free[number] = free - gpus
                try:
                    held[number][gpus] += 1
                except IndexError:
                    held[number] += [0] * (gpus - len(held[number])) + [1]
            if not plain:
                cpu, memory = piece_needs(shape, piece)
                self.cpu[number] -= cpu
                self.memory[number] -= memory
        if self._log is not None:
            self._log.append((shape, placement, True))
        if self.trail is not None:
            self._note(placement)

    def _note(self, placement: Placement) -> None:
        """Keep the trail, unless nobody empties it any more."""
        assert self.trail is not None, "there is a trail"
        self.trail.append(placement)
        if len(self.trail) > _TRAIL:
            self.trail = None

    def leave(self, shape: Shape, placement: Placement) -> None:
        """Inside a trial: as if the gang had left its nodes. It is back when the trial ends."""
        assert self._log is not None, "leave without a trial"
        self._return(shape, placement)
        self._log.append((shape, placement, False))

    def stay(self, shape: Shape, placement: Placement) -> None:
        """Inside a trial: one that left is back where it was; nothing else may have been taken there meanwhile."""
        assert self._log is not None, "stay without a trial"
        self._take_again(shape, placement)
        self._log.append((shape, placement, True))

    def give(self, shape: Shape, placement: Placement) -> None:
        """A gang left its nodes."""
        self._return(shape, placement)
        self.growth += 1

    def _return(self, shape: Shape, placement: Placement) -> None:
        plain = shape.plain
        for piece in placement:
            number, gpus, milli, slot = piece
            if milli:
                self._close_slot(number, milli, slot)
            else:
                free = self.free[number]
                bit = self._bit[number]
                self.free[number] = free + gpus
                self.sizes_held[number][gpus] -= 1
                if bit:
                    if free >= 0:
                        self.buckets[free] ^= bit
                    if free + gpus >= 0:
                        self.buckets[free + gpus] ^= bit
                    self.free_gpus += gpus
                elif free < 0 <= free + gpus:
                    self._fits_again(number)
            if not plain:
                cpu, memory = piece_needs(shape, piece)
                self.cpu[number] += cpu
                self.memory[number] += memory
        if self.trail is not None:
            self._note(placement)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Try placements: what is taken inside is given back at the end. Trials nest."""
        outer = self.begin()
        try:
            yield
        finally:
            self.rollback(outer)

    def begin(self) -> _Log | None:
        """Start a trial by hand, for the engine's hot path; hand the answer to `rollback`."""
        outer, self._log = self._log, []
        return outer

    def keep(self, outer: _Log | None, starts: Sequence[tuple[Any, Placement]]) -> bool:
        """End a trial, and keep what it took if that is exactly the placements of `starts`; else give all back.

        Each `take` was checked, so what is kept is right, and need not be taken twice.
        """
        log = self._log
        assert log is not None, "keep without begin"
        if len(log) == len(starts):
            for at, start in enumerate(starts):
                if log[at][1] is not start[1]:
                    break
            else:
                self._log = outer
                return True
        self.rollback(outer)
        return False

    def rollback(self, outer: _Log | None) -> None:
        """Give back all that was taken since `begin`."""
        log = self._log
        assert log is not None, "rollback without begin"
        while log:
            shape, placement, taken = log.pop()
            if taken:
                self._return(shape, placement)
            else:
                self._take_again(shape, placement)
        self._log = outer

    def _take_again(self, shape: Shape, placement: Placement) -> None:
        """What left in a trial is back, also on a node that takes no work or is gone."""
        for piece in placement:
            number, gpus, milli, slot = piece
            if milli:
                self._open_slot(number, milli, slot)
            else:
                self._set_free(number, self.free[number] - gpus)
                self.sizes_held[number][gpus] += 1
            if not shape.plain:
                cpu, memory = piece_needs(shape, piece)
                self.cpu[number] -= cpu
                self.memory[number] -= memory
        if self.trail is not None:
            self._note(placement)

    def _set_free(self, number: int, free: int) -> None:
        bit, old = self._bit[number], self.free[number]
        self.free[number] = free
        if bit:
            # In a look ahead a job may be back on a node that has shrunk under it: it is in no bucket then.
            if old >= 0:
                self.buckets[old] ^= bit
            if free >= 0:
                self.buckets[free] ^= bit
            self.free_gpus += free - old
        elif old < 0 <= free:
            self._fits_again(number)

    def _fits_again(self, number: int) -> None:
        """A node that shrank under its jobs took no more of them; now those that are left fit it."""
        if self._log is not None:
            return  # in a trial nothing is laid out anew
        if self.nodes[number].schedulable and self.present >> number & 1:
            self._show(number)
            self._relaid()

    def _room(self, number: int, shape: Shape, piece: Piece) -> bool:
        cpu, memory = piece_needs(shape, piece)
        return cpu <= self.cpu[number] and memory <= self.memory[number]

    def _slot_fits(self, number: int, milli: int, slot: int) -> bool:
        left = self.open[number].get(slot)
        return self.free[number] > 0 if left is None else milli <= left

    def _open_slot(self, number: int, milli: int, slot: int) -> None:
        slots = self.open[number]
        if slot in slots:
            slots[slot] -= milli
            return
        slots[slot] = WHOLE - milli
        self._set_free(number, self.free[number] - 1)
        self.sharing |= self._bit[number]

    def _close_slot(self, number: int, milli: int, slot: int) -> None:
        slots = self.open[number]
        slots[slot] += milli
        if slots[slot] == WHOLE:
            del slots[slot]
            self._set_free(number, self.free[number] + 1)
            if not slots:
                self.sharing &= ~self._bit[number]


def piece_needs(shape: Shape, piece: Piece) -> tuple[int, int]:
    """(thousandths of a CPU, bytes) that one piece asks for. A split total is shared out by GPUs."""
    if shape.num_nodes or not shape.gpus:
        return shape.cpu_milli, shape.memory
    return shape.cpu_milli * piece.gpus // shape.gpus, shape.memory * piece.gpus // shape.gpus
