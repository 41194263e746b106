"""Why a shape waits: the most fundamental reason first, with its numbers."""

from __future__ import annotations

from dataclasses import replace

from ..cluster.backend import Node
from ..cluster.pool import Pool, bits
from ..jobs.job import Shape
from .place import Placer
from .placers.levels import pieces_by_domain
from .plan import Token, Why


def never(shape: Shape, pool: Pool, place: Placer) -> Token | None:
    """Why the shape could not start even if nothing ran; None = it could.

    INFEASIBLE: no idle cluster of these nodes could hold it. NODES_DRAINING or NODES_UNHEALTHY: one could, but nodes
    that it needs take no work now, or close before it would be done. SCALING_UP: no node is there yet, as before Ray
    answers.
    """
    if not pool.present:
        return Token.SCALING_UP
    if shape.closing:
        token = never(replace(shape, closing=0), pool, place)
        fits = token is not None or _fits_idle(shape, pool.idle(closed=False), place)
        return token if fits else Token.NODES_DRAINING
    if _fits_idle(shape, pool.idle(), place):
        if not pool.present ^ pool.up:
            return None
        if _fits_idle(shape, pool.idle(closed=False), place):
            return None
        away = [pool.nodes[number] for number in bits(pool.present ^ pool.up)]
        return Token.NODES_DRAINING if any(closed_by_hand(node) for node in away) else Token.NODES_UNHEALTHY
    return Token.INFEASIBLE


def closed_by_hand(node: Node) -> bool:
    """Whether a node takes no work because somebody wants it so; else it is not healthy."""
    orders = node.orders
    if "cordon" in orders or "drain" in orders or orders.get("maintenance", {}).get("on"):
        return True
    return "drain" in node.why or "cordon" in node.why


def _fits_idle(shape: Shape, idle: Pool, place: Placer) -> bool:
    return any(nodes and place(shape, idle, nodes) is not None for nodes in idle.allowed(shape))


def not_now(shape: Shape, needs: float, pool: Pool, withheld: int) -> Token:
    """Why a shape that fits an idle cluster does not fit now."""
    if not (shape.gpu_types or shape.labels or shape.topology or shape.avoid or shape.closing):
        free = float(pool.free_gpus)
        allowed = pool.up
    else:
        allowed = pool.reach(shape)
        free = float(pool.free_on(allowed))
        if shape.closing and free < needs <= pool.free_on(pool.reach(replace(shape, closing=0))):
            return Token.NODES_DRAINING
    if withheld & allowed and free >= needs:
        return Token.RESERVED_FOR_OTHER
    if shape.gpu_milli and pool.sharing & allowed:
        free += _open_parts(shape, pool, allowed)
    if free < needs:
        return Token.GPU_TYPE_BUSY if shape.gpu_types and pool.free_gpus >= needs else Token.INSUFFICIENT_GPUS
    if shape.cpu_milli or shape.memory:
        scarce = _scarce(shape, pool, allowed)
        if scarce is not Token.FRAGMENTED:
            return scarce
    if shape.topology is not None and shape.topology.mode == "required":
        _, pieces = pieces_by_domain(shape, pool)
        if sum(pieces) >= (shape.num_nodes or shape.gpus):
            return Token.TOPOLOGY_UNSATISFIED
    return Token.FRAGMENTED


def _open_parts(shape: Shape, pool: Pool, nodes: int) -> float:
    """GPUs' worth of parts in shared GPUs that one piece could use."""
    milli = shape.gpu_milli
    parts = (left for number in bits(pool.sharing & nodes) for left in pool.open[number].values() if left >= milli)
    return sum(left // milli * milli for left in parts) / 1000


def _scarce(shape: Shape, pool: Pool, nodes: int) -> Token:
    """GPUs are there: are they only in the wrong pieces, or do their nodes lack CPUs or memory?"""
    gpus = shape.gpus if shape.num_nodes else 1
    with_gpus = 0
    for bucket in pool.buckets[gpus:]:
        with_gpus |= bucket & nodes
    if not with_gpus:
        return Token.FRAGMENTED
    if all(pool.cpu[number] < shape.cpu_milli for number in bits(with_gpus)):
        return Token.INSUFFICIENT_CPUS
    if all(pool.memory[number] < shape.memory for number in bits(with_gpus)):
        return Token.INSUFFICIENT_MEMORY
    return Token.FRAGMENTED


def numbers(token: Token, shape: Shape, needs: float, pool: Pool, behind: int) -> Why:
    """The reason with its numbers at this moment."""
    allowed = pool.reach(shape)
    return Why(token, needs, float(pool.free_on(allowed)), pool.largest_on(allowed), behind)
