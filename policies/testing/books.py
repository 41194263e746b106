"""What a cluster can hold, counted anew each time: slow, short, and written apart from the pool that it judges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...cluster.backend import Node
from ...cluster.pool import WHOLE, piece_needs
from ...jobs.job import Placement, Shape


def overbooked(nodes: Sequence[Node], held: Iterable[tuple[Shape, Placement]]) -> str:
    """The first node that holds more than it has, in words; empty = none does."""
    whole = [0] * len(nodes)
    cpu = [0] * len(nodes)
    memory = [0] * len(nodes)
    shared: list[dict[int, int]] = [{} for _ in nodes]
    for shape, placement in held:
        for piece in placement:
            number = piece.node
            if not 0 <= number < len(nodes):
                return f"{shape} is on node {number}, and there is none"
            whole[number] += piece.gpus
            if piece.gpu_milli:
                slots = shared[number]
                slots[piece.slot] = slots.get(piece.slot, 0) + piece.gpu_milli
            need = piece_needs(shape, piece)
            cpu[number] += need[0]
            memory[number] += need[1]
    for number, node in enumerate(nodes):
        gpus = whole[number] + len(shared[number])
        for used, has, what in (
            (gpus, node.gpus, "GPUs"),
            (max(shared[number].values(), default=0), WHOLE, "thousandths of one GPU"),
            (cpu[number], node.cpu_milli, "thousandths of a CPU"),
            (memory[number], node.memory, "bytes"),
        ):
            if used > has:
                return f"node {node.name} has {has} {what} and {used} are given out"
    return ""


def in_part(shape: Shape, placement: Placement) -> str:
    """What is not whole about a gang's placement, in words; empty = it is whole."""
    if any(piece.gpus < 0 or piece.gpu_milli < 0 for piece in placement):
        return "a piece takes less than nothing"
    if shape.num_nodes == 0 and shape.gpus:
        gpus = sum(piece.gpus for piece in placement)
        if gpus != shape.gpus or any(piece.gpu_milli or not piece.gpus for piece in placement):
            return f"{shape.gpus} GPUs were asked for and {gpus} given"
        return ""
    pieces = max(shape.num_nodes, 1)
    if len(placement) != pieces:
        return f"{pieces} pieces were asked for and {len(placement)} given"
    if any((piece.gpus, piece.gpu_milli) != (shape.gpus, shape.gpu_milli) for piece in placement):
        return "a piece has another size than was asked for"
    return ""


def forbidden(shape: Shape, placement: Placement, nodes: Sequence[Node], *, present: Sequence[bool]) -> str:  # noqa: PLR0911 - a return a wish
    """Which wish of the job the placement does not honour, in words; empty = all are."""
    used = [nodes[piece.node] for piece in placement]
    if not all(present[piece.node] and nodes[piece.node].schedulable for piece in placement):
        return "it is on a node that takes no work"
    types = {node.gpu_type.lower() for node in used}
    if shape.gpu_types and not (len(types) == 1 and types <= {kind.lower() for kind in shape.gpu_types}):
        return f"it asks for {'|'.join(shape.gpu_types)} and is on {', '.join(sorted(types))}"
    for node in used:
        for key, value in shape.labels:
            if node.labels.get(key) != value:
                return f"it asks for {key}={value} and is on {node.name} with {node.labels}"
    if shape.distinct and len({node.name for node in used}) != len(used):
        return "two of its pieces are on one node, which it rules out"
    wish = shape.topology
    if wish is not None and wish.mode == "required" and len({_domain(node, wish.level) for node in used}) > 1:
        return f"it requires one {wish.level} and is on {', '.join(sorted(node.name for node in used))}"
    if wish is not None and wish.mode == "required" and _domain(used[0], wish.level) is None:
        return f"it requires a {wish.level} and {used[0].name} lies in none"
    others = [node for number, node in enumerate(nodes) if present[number] and node.schedulable]
    bad = sorted({node.name for node in used}.intersection(shape.avoid))
    if bad and fits_idle(shape, [node for node in others if node.name not in shape.avoid]):
        return f"it is on {', '.join(bad)}, which it avoids, and the others could hold it"
    return ""


def _domain(node: Node, level: str) -> str | None:
    """The value of the label, or the node's own name; None = it has no such label."""
    return node.name if level == "node" else node.labels.get(level)


def fits_idle(shape: Shape, nodes: Sequence[Node]) -> bool:
    """Whether these nodes could hold the gang if nothing else ran.

    A total to be split that is larger than the largest node is left to the placer's own rule: it counts as not fitting.
    """
    for kind in shape.gpu_types or ("",):
        allowed = [
            node
            for node in nodes
            if (not kind or node.gpu_type.lower() == kind.lower())
            and all(node.labels.get(key) == value for key, value in shape.labels)
        ]
        wish = shape.topology
        if wish is None or wish.mode != "required":
            domains = [allowed]
        else:
            names = {_domain(node, wish.level) for node in allowed} - {None}
            domains = [[node for node in allowed if _domain(node, wish.level) == name] for name in names]
        if any(_holds(shape, domain) for domain in domains):
            return True
    return False


def _holds(shape: Shape, nodes: Sequence[Node]) -> bool:
    pieces = [pieces_on(shape, node) for node in nodes]
    wanted = max(shape.num_nodes, 1)
    return sum(min(count, 1) for count in pieces) >= wanted or (not shape.distinct and sum(pieces) >= wanted)


def pieces_on(shape: Shape, node: Node) -> int:
    """How many pieces of the gang the idle node could hold."""
    most = max(shape.num_nodes, 1)
    if shape.gpu_milli:
        most = min(most, node.gpus * (WHOLE // shape.gpu_milli))
    elif shape.gpus:
        most = min(most, node.gpus // shape.gpus)
    if shape.cpu_milli:
        most = min(most, node.cpu_milli // shape.cpu_milli)
    if shape.memory:
        most = min(most, node.memory // shape.memory)
    return most
