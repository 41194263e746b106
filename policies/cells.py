"""HiveD's cells (Zhao et al., OSDI 2020): which parts of the cluster are bound to which tenant now, and what is left.

A cell is a part of the cluster at one level: one GPU, a machine (`node`), or a domain of the topology such as a rack. A
tenant is a queue that owns virtual cells. Those are bound to physical cells only while jobs of the tenant run there. A
job is served by cells of one level: the lowest its tenant owns of which one holds it whole, so that rack cells are not
broken up for what node cells can serve; else the widest of which several do together.

What is bound follows from the running jobs alone: jobs that cannot be preempted first, then the others, by start. Each
holds its tenant's cells if those around its nodes can be bound to it; if not, it runs opportunistically.

The safety invariant: beside what is bound, all virtual cells that are not can be cut out of what is left at once. They
are cut as a buddy allocator splits, the widest level first, from parts in which nothing is bound; what ends is merged
again by not being bound any more. Nothing is bound that would break it (or make it worse, after nodes went or the
tenants were given more than there is).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..cluster.holding import pieces_when_idle
from ..cluster.pool import Pool, bits
from ..cluster.topology import NODE
from ..jobs.job import Job, Placement, Shape

if TYPE_CHECKING:
    from .tree import Tree

GPU = "gpu"
"""The level below the machines."""


class Tenants:
    """Who owns which virtual cells, and which level serves which job, on one layout of the pool.

    Attributes:
        cells: by tenant, its cells by level; only levels that this cluster has. owned: by level, those of all.
        levels: from the narrowest to the widest, without GPUs.
    """

    def __init__(self, pool: Pool, tree: Tree | None) -> None:
        self._pool = pool
        self._tree = tree
        self.levels: tuple[str, ...] = (NODE, *reversed(pool.topology().levels))
        known = {GPU, *self.levels}
        self.cells = {
            node.name: {level: count for level, count in node.cells.items() if level in known}
            for node in (() if tree is None else tree.queues)
            if node.cells
        }
        self._levels: dict[tuple[str, Shape], str] = {}
        self._of: dict[str, str] = {}
        self.owned = {level: sum(own.get(level, 0) for own in self.cells.values()) for level in (GPU, *self.levels)}
        self._smallest: dict[str, list[int]] = {}
        self._largest = max((node.gpus for node in pool.nodes), default=0)

    def of(self, job: Job) -> str:
        """The tenant of a job: its queue, or the nearest above it that owns cells; empty = none."""
        found = self._of.get(job.queue)
        if found is None:
            tree, name = self._tree, "" if self._tree is None else self._tree.resolve(job.queue)
            path = () if tree is None or name not in tree else tree.path(name)
            found = self._of[job.queue] = next((node.name for node in path if node.name in self.cells), "")
        return found

    def level(self, tenant: str, shape: Shape) -> str:
        """The level of the cells that serve the tenant's jobs of this shape; empty = it owns none that could."""
        if not tenant:
            return ""
        found = self._levels.get((tenant, shape))
        if found is None:
            found = self._levels[tenant, shape] = self._serving(self.cells[tenant], shape)
        return found

    def smallest(self, level: str) -> list[int]:
        """The node sets of the cells of a level that all take work, those with the fewest GPUs first."""
        found = self._smallest.get(level)
        if found is None:
            pool = self._pool
            parts = [part for part in pool.topology().parts(level)[:-1] if part and not part & ~pool.up]
            found = self._smallest[level] = sorted(parts, key=lambda part: size_of(part, pool))
        return found

    def _serving(self, own: dict[str, int], shape: Shape) -> str:
        gpus = gpus_of(shape)
        if not gpus:
            return ""
        if own.get(GPU, 0) >= gpus and gpus <= self._largest and not shape.distinct:
            return GPU
        pieces, reach = max(shape.num_nodes, 1), self._pool.reach(shape)
        several = ""
        for level in self.levels:
            if not own.get(level):
                continue
            rooms = sorted(
                (self._room(shape, reach & part) for part in self._pool.topology().parts(level)[:-1]), reverse=True
            )
            if rooms and rooms[0] >= pieces:
                return level
            if sum(rooms[: own[level]]) >= pieces:
                several = level
        return several

    def _room(self, shape: Shape, nodes: int) -> int:
        """Pieces that so many idle nodes hold; a total is one piece."""
        there = [self._pool.nodes[number] for number in bits(nodes)]
        if not shape.num_nodes:
            return int(sum(node.gpus for node in there) >= shape.gpus)
        return sum(pieces_when_idle(shape, node) for node in there)


def gpus_of(shape: Shape) -> int:
    """GPUs that a gang counts for; of a shared GPU each piece counts as a whole one."""
    return max(shape.num_nodes, 1) * (shape.gpus + (shape.gpu_milli > 0))


class Cells:
    """What is bound at one moment.

    Attributes:
        tenants: who owns what.
        bound: by (tenant, level), the numbers of the physical cells that are bound to it.
        gpus: by tenant, the GPUs that its jobs at the level of GPUs hold.
        whole: nodes inside bound cells, a bit set. parts: nodes of which single GPUs are bound, or held for good by
            jobs outside all cells.
        inside: ids of the jobs that hold cells.
    """

    def __init__(self, tenants: Tenants, pool: Pool, running: Iterable[Job]) -> None:
        self.tenants = tenants
        self._pool = pool
        self._topology = pool.topology()
        self.bound: dict[tuple[str, str], set[int]] = {}
        self.gpus: dict[str, int] = {}
        self.whole = 0
        self.parts = 0
        self.inside: set[int] = set()
        self._held: dict[int, int] = {}  # GPUs bound or held for good on nodes of `parts`
        self._short: tuple[int, ...] = ()
        if tenants.cells:
            self._short = self.shortage()
            for job in sorted(running, key=lambda job: (job.preemptible, job.placed, job.id)):
                self.take(job, job.placement)

    def nodes(self, tenant: str, level: str) -> list[int]:
        """The node sets of the cells that are bound to a tenant at a level."""
        parts = self._topology.parts(level)
        return [parts[index] for index in sorted(self.bound.get((tenant, level), ()))]

    def left(self, tenant: str, level: str) -> int:
        """How many more cells of a level may be bound to a tenant."""
        return self.tenants.cells[tenant].get(level, 0) - len(self.bound.get((tenant, level), ()))

    def free(self, level: str) -> list[int]:
        """Numbers of the physical cells of a level in which nothing is bound, the most broken surroundings first.

        As a buddy allocator takes a free block where one was split already, before it splits another.
        """
        parts = self._topology.parts(level)
        busy = self.whole | self.parts
        found = [index for index, part in enumerate(parts[:-1]) if not part & busy]
        wider = self.tenants.levels[self.tenants.levels.index(level) + 1 :]
        around = [(self._topology.of(name), self._topology.parts(name)) for name in wider]

        def broken(index: int) -> tuple[int, ...]:
            first = (parts[index] & -parts[index]).bit_length() - 1
            return (*(not of[first] >= 0 or (sets[of[first]] & ~busy).bit_count() for of, sets in around), index)

        return sorted(found, key=broken)

    def holds(self, job: Job, placement: Placement) -> bool:
        """Whether the cells around a placement can be bound to the job's tenant, without breaking the invariant."""
        new = self._new(job, placement)
        return new is not None and self._safe(job, placement, new)

    def take(self, job: Job, placement: Placement) -> None:
        """The job is there: inside cells if it can be, else outside; then it is only in the way if it has to stay."""
        new = self._new(job, placement)
        if new is not None and self._safe(job, placement, new):
            self._bind(job, placement, new)
            self.inside.add(job.id)
        elif not job.preemptible:
            self._hold(placement)
        else:
            return
        self._short = self.shortage()

    def harmless(self, placement: Placement) -> bool:
        """Whether a job may stay there for good outside all cells: the invariant holds as before."""
        if any(self.whole >> piece.node & 1 for piece in placement):
            return False
        before = self._hold(placement)
        try:
            return self.shortage() <= self._short
        finally:
            self._held, self.parts = before

    # Binding ----------------------------------------------------------------------------------------------------------

    def _new(self, job: Job, placement: Placement) -> set[int] | None:
        """The cells that have to be bound beside those that are; None = they cannot be."""
        tenant = self.tenants.of(job)
        level = self.tenants.level(tenant, job.shape)
        if not level:
            return None
        if level == GPU:
            held = self.gpus.get(tenant, 0) + gpus_of(job.shape)
            outside = not any(self.whole >> piece.node & 1 for piece in placement)
            return set() if outside and held <= self.tenants.cells[tenant][GPU] else None
        of, parts = self._topology.of(level), self._topology.parts(level)
        mine = self.bound.get((tenant, level), set())
        new = {of[piece.node] for piece in placement} - mine
        if -1 in new or len(new) > self.left(tenant, level):
            return None
        busy = self.whole | self.parts
        return None if any(parts[index] & busy for index in new) else new

    def _safe(self, job: Job, placement: Placement, new: set[int]) -> bool:
        tenant = self.tenants.of(job)
        level = self.tenants.level(tenant, job.shape)
        if level != GPU and not new:
            return True
        saved = self.whole, dict(self.gpus), {key: set(cells) for key, cells in self.bound.items()}
        held = self._held, self.parts
        self._held = dict(self._held)
        self._bind(job, placement, new)
        try:
            return self.shortage() <= self._short
        finally:
            self.whole, self.gpus, self.bound = saved
            self._held, self.parts = held

    def _bind(self, job: Job, placement: Placement, new: set[int]) -> None:
        tenant = self.tenants.of(job)
        level = self.tenants.level(tenant, job.shape)
        if level == GPU:
            self.gpus[tenant] = self.gpus.get(tenant, 0) + gpus_of(job.shape)
            self._hold(placement)
            return
        self.bound.setdefault((tenant, level), set()).update(new)
        for index in new:
            self.whole |= self._topology.parts(level)[index]

    def _hold(self, placement: Placement) -> tuple[dict[int, int], int]:
        """Single GPUs are bound, or held for good; what was before."""
        before = self._held, self.parts
        self._held = dict(self._held)
        for piece in placement:
            self._held[piece.node] = self._held.get(piece.node, 0) + piece.gpus + (piece.gpu_milli > 0)
            self.parts |= 1 << piece.node
        return before

    def shortage(self) -> tuple[int, ...]:
        """By level from the widest, how many virtual cells could not be cut out of what is left; last GPUs."""
        tenants, up = self.tenants, self._pool.up
        left = up & ~self.whole & ~self.parts
        short: list[int] = []
        bound = dict.fromkeys(tenants.levels, 0)
        for (_, level), cells in self.bound.items():
            bound[level] += len(cells)
        for level in reversed(tenants.levels):
            wanted = tenants.owned[level] - bound[level]
            for part in tenants.smallest(level) if wanted else ():
                if not part & ~left:
                    left ^= part
                    wanted -= 1
                    if not wanted:
                        break
            short.append(wanted)
        wanted = tenants.owned[GPU] - sum(self.gpus.values())
        if wanted:
            held = self._held.items()
            spare = sum([self._pool.nodes[number].gpus - gpus for number, gpus in held if up >> number & 1])
            wanted = max(wanted - size_of(left, self._pool) - spare, 0)
        short.append(wanted)
        return tuple(short)


def size_of(nodes: int, pool: Pool) -> int:
    """GPUs that these nodes have."""
    return sum([gpus * (there & nodes).bit_count() for gpus, there in pool.sizes.items()])


def lost_in(of: Sequence[int], going: Iterable[tuple[float, Job]]) -> dict[int, float]:
    """The work that would be lost in each cell if these jobs went; `of` says which cell a node is in."""
    lost: dict[int, float] = {}
    for cost, job in going:
        for index in {of[piece.node] for piece in job.placement}:
            lost[index] = lost.get(index, 0.0) + cost
    return lost
