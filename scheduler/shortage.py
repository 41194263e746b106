"""Reasons in words, each with the numbers that make it believable: what is needed, what is free, in which pieces."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from ..cluster.backend import Node
from ..cluster.pool import Pool, bits
from ..jobs.events import MOVES, Kind
from ..jobs.job import Job, Shape, State
from ..jobs.units import format_size
from ..policies.placers.levels import pieces_by_domain
from ..policies.plan import Token, Why
from .closed_words import closed_nodes, closed_words
from .queue_words import SHORT

MOST_PIECES = 8
"""Nodes whose free GPUs are listed one by one."""


def held_words(reason: str) -> str:
    """Why a job is held: gpusched's own reason, else that a user wants it."""
    return "held back by a user" if reason in {"", MOVES[State.QUEUED][Kind.HELD].why} else reason


def needs(shape: Shape) -> str:
    """What is asked for, such as "2x8 H100" or "0.5 GPU"."""
    gpus = f"{shape.gpu_milli / 1000:g}" if shape.gpu_milli else str(shape.gpus)
    kind = "|".join(shape.gpu_types) or ("GPU" if gpus == "1" or shape.gpu_milli else "GPUs")
    if not shape.gpus and not shape.gpu_milli:
        each = _host_needs(shape)
        return each if shape.num_nodes <= 1 else f"{shape.num_nodes} nodes with {each}"
    return f"{gpus} {kind}" if shape.num_nodes <= 1 else f"{shape.num_nodes}x{gpus} {kind}"


def _host_needs(shape: Shape) -> str:
    parts = []
    if shape.cpu_milli:
        parts.append(f"{shape.cpu_milli / 1000:g} CPU{'s' * (shape.cpu_milli != 1000)}")  # noqa: PLR2004 - one CPU
    if shape.memory:
        parts.append(f"{format_size(shape.memory)} of memory")
    return " and ".join(parts) or "a node"


def why_words(why: Why, shape: Shape) -> str:
    """A journaled reason, with its numbers of the time when it was given."""
    if why.token in {Token.PRIORITY, Token.RESERVED_FOR_OTHER} and why.behind:
        return f"needs {needs(shape)}; waits behind job {why.behind}"
    if why.token is Token.INFEASIBLE:
        labels = f" on nodes with {', '.join(map('='.join, shape.labels))}" if shape.labels else ""
        return f"needs {needs(shape)}{labels}, which this cluster can never give"
    if why.token in {Token.NODES_DRAINING, Token.NODES_UNHEALTHY}:
        return f"needs {needs(shape)}; nodes that could hold it take no work now"
    if why.token in {Token.INSUFFICIENT_CPUS, Token.INSUFFICIENT_MEMORY}:
        if not shape.gpus and not shape.gpu_milli:
            return f"needs {needs(shape)}; no node has that free"
        return f"needs {needs(shape)} with {_host_needs(shape)}; no node with enough GPUs free has that free"
    lack = SHORT.get(why.token) or f"{why.free:g} free; largest free block {why.largest}"
    if why.token is Token.RESERVED_FOR_OTHER:
        lack = f"{why.free:g} free, for which the owners of cells may call at any time"
    if why.token is Token.TOPOLOGY_UNSATISFIED:
        lack = f"{why.free:g} free, not as close together as it has to be now"
        if shape.topology is not None and shape.topology.mode == "required":
            lack = f"{why.free:g} free, too few of them within one {shape.topology.level}"
    return f"needs {needs(shape)}; {lack}"


def behind_words(first: Job, *, reserved: bool) -> str:
    """That another job goes first."""
    who = f"job {first.id}" + (f" ({first.name})" if first.name else "") + (f" of {first.user}" if first.user else "")
    if reserved:
        return f"the nodes that are free wait for {who}, which needs {needs(first.shape)}"
    return f"waits behind {who}, which needs {needs(first.shape)}"


def victims_words(victims: list[Job]) -> str:
    """That others were told to go for it."""
    listed = ", ".join(f"{one.id} ({one.name})" if one.name else str(one.id) for one in victims[:3])
    more = f" and {len(victims) - 3} more" if len(victims) > 3 else ""  # noqa: PLR2004 - as many as are named
    return f"job{'s' * (len(victims) > 1)} {listed}{more} gave way to it; it starts when their processes are gone"


def not_now_words(token: Token, shape: Shape, pool: Pool) -> tuple[str, dict[str, Any]]:
    """Why there is no room now, and the numbers in it."""
    allowed = pool.reach(shape)
    free = sorted((pool.free[number] for number in bits(allowed) if pool.free[number] > 0), reverse=True)
    shared = sum(left for number in bits(pool.sharing & allowed) for left in pool.open[number].values()) / 1000
    numbers: dict[str, Any] = {
        "needs": shape.total_gpus,
        "free": sum(free) + (shared if shape.gpu_milli else 0),
        "pieces": free[:MOST_PIECES],
        "largest": free[0] if free else 0,
    }
    wanted = f"needs {needs(shape)}"
    if token is Token.TOPOLOGY_UNSATISFIED:
        return _apart_words(shape, pool, numbers)
    if token is Token.GPU_TYPE_BUSY:
        others = pool.free_gpus - sum(free)
        return f"{wanted}; free {sum(free)} of that type, {others} of others", {**numbers, "other_types": others}
    if token is Token.INSUFFICIENT_CPUS:
        most = max((pool.cpu[n] for n in bits(allowed) if pool.free[n] >= shape.gpus), default=0) / 1000
        asked = shape.cpu_milli / 1000
        where = "on a node with enough GPUs free " if shape.gpus else ""
        text = f"{wanted} with {asked:g} CPUs on one node; the most free {where}is {most:g}"
        return text if shape.gpus else f"needs {asked:g} CPUs on one node; the most free is {most:g}", {
            **numbers,
            "cpus": asked,
            "most_cpus": most,
        }
    if token is Token.INSUFFICIENT_MEMORY:
        most = max((pool.memory[n] for n in bits(allowed) if pool.free[n] >= shape.gpus), default=0)
        return (
            f"{wanted} with {format_size(shape.memory)} of memory on one node; the most free is {_about(most)}",
            {**numbers, "memory": shape.memory, "most_memory": most},
        )
    if not shape.gpus and not shape.gpu_milli:
        return f"{wanted}, of which too little is free on one node", numbers
    return f"{wanted}; free {_pieces(numbers, free)}; largest free block {numbers['largest']}", numbers


def _apart_words(shape: Shape, pool: Pool, numbers: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """That enough is free in all, and in no single domain of the level that the job requires."""
    assert shape.topology is not None, "nothing else can be unsatisfied"
    level = shape.topology.level
    domains, pieces = pieces_by_domain(shape, pool)
    most, domain = max(zip(pieces, domains, strict=True), key=lambda pair: pair[0])
    parts = "GPUs" if not shape.num_nodes else f"of {shape.num_nodes} pieces"
    words = (
        f"needs {needs(shape)} within one {level}; free {numbers['free']:g}, "
        f"and the {level} with most room, {domain.name}, takes {most} {parts}"
    )
    return words, {**numbers, "level": level, "domain": domain.name, "domain_takes": most}


def _pieces(numbers: dict[str, Any], free: list[int]) -> str:
    if len(free) <= 1:
        return f"{numbers['free']:g}"
    listed = "+".join(map(str, free[:MOST_PIECES])) + (f"+... on {len(free)} nodes" if len(free) > MOST_PIECES else "")
    return f"{numbers['free']:g} in pieces {listed}"


def never_words(token: Token, shape: Shape, pool: Pool) -> str:
    """Why not even the idle cluster could hold it, or that nodes which take no work are in the way."""
    if token is not Token.INFEASIBLE:
        listed, _ = closed_words(closed_nodes(shape, pool), pool)
        return f"needs {needs(shape)}, which this cluster could hold, but not now: {listed}"
    nodes = [pool.nodes[number] for number in bits(pool.present)]
    return f"needs {needs(shape)}; {_what_lacks(shape, nodes)}"


def _what_lacks(shape: Shape, nodes: list[Node]) -> str:
    """The first thing that no cluster of these nodes could give."""
    such = "such " if shape.gpu_types or shape.labels else ""
    typed = [node for node in nodes if _of_type(node, shape)]
    if not typed:
        return f"the cluster has {_types(nodes)}"
    labelled = [node for node in typed if all(node.labels.get(key) == value for key, value in shape.labels)]
    if not labelled:
        return f"no {'such ' if shape.gpu_types else ''}node carries {', '.join(map('='.join, shape.labels))}"
    if shape.topology is not None and shape.topology.mode == "required":
        return _level_lacks(shape, labelled, such)
    total = sum(node.gpus for node in labelled)
    if shape.num_nodes:
        lack = _largest_lacks(shape, labelled, such)
        if lack:
            return lack
    if total < shape.total_gpus:
        return f"all {such}nodes together have {total} GPU{'s' * (total != 1)}"
    apart = ", each piece on a node of its own" if shape.distinct else ""
    return f"there are not enough nodes that could hold its pieces{apart}"


def _level_lacks(shape: Shape, nodes: list[Node], such: str) -> str:
    """What no domain of the required level could ever give."""
    assert shape.topology is not None, "it requires a level"
    level = shape.topology.level
    idle = Pool([replace(node, schedulable=True) for node in nodes])
    anywhere = replace(shape, gpu_types=(), labels=())
    domains, _ = pieces_by_domain(anywhere, idle)
    if not domains:
        return f"no {such}node carries the label {level}, and it requires one {level}"
    gpus, domain = max(((idle.free_on(domain.nodes), domain) for domain in domains), key=lambda pair: pair[0])
    return f"it requires one {level}, and the largest, {domain.name}, has {gpus} GPU{'s' * (gpus != 1)}"


def _types(nodes: list[Node]) -> str:
    there = Counter(node.gpu_type or "GPUs of unknown type" for node in nodes if node.gpus)
    listed = [f"{kind} on {count} node{'s' * (count != 1)}" for kind, count in there.most_common(4)]
    return ", ".join(listed) or "no GPUs"


def _largest_lacks(shape: Shape, nodes: list[Node], such: str) -> str:
    """What one piece asks for and no single node has; empty = each piece has a node that could hold it."""
    gpus = shape.gpus or (1 if shape.gpu_milli else 0)
    holds = [node for node in nodes if node.gpus >= gpus]
    if not holds:
        return f"the largest {such}node has {max(node.gpus for node in nodes)}"
    cpu, memory = max(node.cpu_milli for node in holds), max(node.memory for node in holds)
    if cpu < shape.cpu_milli:
        asked, most = f"{shape.cpu_milli / 1000:g} CPUs", f"{cpu / 1000:g} CPU{'s' * (cpu != 1000)}"  # noqa: PLR2004 - one CPU
    elif memory < shape.memory:
        asked, most = f"{format_size(shape.memory)} of memory", f"{_about(memory)} of memory"
    else:
        return ""
    lack = f"the largest {such}node has {most}"
    return f"and {asked} on one node; {lack}" if gpus else lack


def _about(size: int) -> str:
    """A size that a machine has, which is seldom round, as people say it."""
    exact = format_size(size)
    return exact if len(exact) <= len("1024GiB") else f"{size / 2**30:.1f}GiB"


def _of_type(node: Node, shape: Shape) -> bool:
    return not shape.gpu_types or node.gpu_type.lower() in {kind.lower() for kind in shape.gpu_types}
