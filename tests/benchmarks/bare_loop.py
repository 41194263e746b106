"""The yardstick: FIFO and SJF with first fit as a hand-written loop, with nothing around it.

It knows one trace format (submitted, GPUs, duration), one kind of node and two orders; it keeps no journal and no
decisions and cannot say why a job waits. The engine's results are compared with its results, and its speed with the
engine's.
"""

from __future__ import annotations

from heapq import heappop, heappush

Row = tuple[float, int, float]
"""(submitted, GPUs, duration)"""


def replay(rows: list[Row], nodes: int, size: int, *, shortest: bool = False) -> list[float]:
    """Start time of each job under strict FIFO (or strict SJF), first fit on `nodes` nodes of `size` GPUs."""
    free = [size] * nodes
    starts = [0.0] * len(rows)
    held: list[list[tuple[int, int]]] = [[]] * len(rows)
    ends: list[tuple[float, int]] = []
    queue: list[tuple[float, float, int]] = []
    arrived, total = 0, len(rows)
    never = float("inf")
    while arrived < total or ends:
        now = min(rows[arrived][0] if arrived < total else never, ends[0][0] if ends else never)
        while ends and ends[0][0] <= now:
            for node, gpus in held[heappop(ends)[1]]:
                free[node] += gpus
        while arrived < total and rows[arrived][0] <= now:
            submitted, _, duration = rows[arrived]
            heappush(queue, (duration if shortest else 0.0, submitted, arrived))
            arrived += 1
        while queue:
            job = queue[0][2]
            placement = _first_fit(rows[job][1], free, size)
            if placement is None:
                break
            heappop(queue)
            for node, gpus in placement:
                free[node] -= gpus
            held[job] = placement
            starts[job] = now
            heappush(ends, (now + rows[job][2], job))
    return starts


def _first_fit(gpus: int, free: list[int], size: int) -> list[tuple[int, int]] | None:
    if gpus <= size:
        for node, there in enumerate(free):
            if there >= gpus:
                return [(node, gpus)]
        return None
    whole, rest = divmod(gpus, size)
    idle = [node for node, there in enumerate(free) if there == size][:whole]
    if len(idle) < whole:
        return None
    placement = [(node, size) for node in idle]
    if rest:
        taken = set(idle)
        last = next((node for node, there in enumerate(free) if there >= rest and node not in taken), None)
        if last is None:
            return None
        placement.append((last, rest))
    return placement
