"""Scores of a node for one piece of a gang: whole numbers from 0 to 100, the higher the better.

The rules of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), are exact to the authors' simulator: CPUs and
GPUs count half each and memory does not, vectors are divided by the largest node, and a score is cut to a whole number
as kube-scheduler does, so that there are many ties; those go to the node with the smallest name. The others count
memory too. A dimension that no node has is left out.
"""

from __future__ import annotations

from math import sqrt

from ...cluster.pool import WHOLE
from ...jobs.job import Shape
from .rooms import Largest, Room

MAX = 100


def asked(shape: Shape) -> int:
    """Thousandths of GPUs that one piece asks for."""
    return shape.gpu_milli or shape.gpus * WHOLE


def _left(room: Room, shape: Shape, largest: Largest) -> float:
    """Share of the largest node that stays free, CPUs and GPUs half each."""
    share = 0.0
    if largest.cpu_milli:
        share += (room.cpu - shape.cpu_milli) / largest.cpu_milli * 0.5
    if largest.gpu_milli:
        share += (room.idle - asked(shape)) / largest.gpu_milli * 0.5
    return share


def best_fit(room: Room, shape: Shape, largest: Largest) -> int:
    """Least left over."""
    return int((1.0 - _left(room, shape, largest)) * MAX)


def worst_fit(room: Room, shape: Shape, largest: Largest) -> int:
    """Most left over."""
    return int(_left(room, shape, largest) * MAX)


def dot_product(room: Room, shape: Shape, largest: Largest) -> int:
    """The smallest product of what is asked and what is free: tight nodes go first, and those short of what it asks."""
    product = 0.0
    if largest.cpu_milli:
        product += room.cpu / largest.cpu_milli * (shape.cpu_milli / largest.cpu_milli)
    if largest.gpu_milli:
        product += room.idle / largest.gpu_milli * (asked(shape) / largest.gpu_milli)
    return int(MAX * (1 - product / 2))


def gpu_packing(room: Room, shape: Shape, largest: Largest) -> int:  # noqa: ARG001 - a score's form
    """A GPU that is shared already, else a free GPU on a used node, else an idle node: MLaaS in the Wild, NSDI 2022.

    A shared GPU: 100 less a tenth of the percent free on it. Free GPUs of a used node: 50 less one for each taken,
    down to 33. A node whose GPUs are all free: 33 less one for each. Jobs without a GPU go anywhere.
    """
    if not asked(shape):
        return 0
    if room.free == room.gpus:
        return max(MAX // 3 - room.free, room.free)
    tightest = next((part for part in room.parts if part >= shape.gpu_milli), 0) if shape.gpu_milli else 0
    if tightest:
        return max(MAX - tightest * 100 // WHOLE // 10, MAX // 2)
    return max(MAX // 2 - max(shape.gpus, 1), MAX // 3)


def gpu_clustering(room: Room, shape: Shape, largest: Largest) -> int:
    """Nodes that hold jobs with the same number of GPUs: Gandiva, OSDI 2018. Those that share a GPU are one kind.

    In this order: only such jobs there, such jobs among others, no job with a GPU, others only; within each the node
    with the fewest GPUs free. Jobs without a GPU go anywhere.
    """
    if not asked(shape):
        return 0
    kinds = len(room.held) + bool(room.parts)
    same = bool(room.parts) if shape.gpu_milli else shape.gpus in room.held
    band = (3 if kinds == 1 else 2) if same else (0 if kinds else 1)
    quarter = MAX // 4
    return quarter * (largest.gpu_milli - room.idle) // largest.gpu_milli + quarter * band


def _used(room: Room, shape: Shape) -> list[float]:
    """Share of each dimension of the node that is in use once the piece is there: CPUs, GPUs, memory."""
    used: list[float] = []
    if room.cpu_milli:
        used.append((room.cpu_milli - room.cpu + shape.cpu_milli) / room.cpu_milli)
    if room.gpus:
        used.append((room.gpus * WHOLE - room.idle + asked(shape)) / (room.gpus * WHOLE))
    if room.memory_bytes:
        used.append((room.memory_bytes - room.memory + shape.memory) / room.memory_bytes)
    return used


def most_allocated(room: Room, shape: Shape, largest: Largest) -> int:  # noqa: ARG001 - a score's form
    """Most in use of what the node itself has, the mean over dimensions: kube-scheduler's MostAllocated."""
    used = _used(room, shape)
    return int(sum(used) / len(used) * MAX) if used else 0


def balanced(room: Room, shape: Shape, largest: Largest) -> int:  # noqa: ARG001 - a score's form
    """Dimensions in use alike, 1 less their standard deviation: kube-scheduler's BalancedAllocation."""
    used = _used(room, shape)
    if not used:
        return 0
    mean = sum(used) / len(used)
    return int((1 - sqrt(sum((share - mean) ** 2 for share in used) / len(used))) * MAX)


def tetris(room: Room, shape: Shape, largest: Largest) -> int:
    """The largest product of what is asked and what is free: Grandl et al., "Multi-Resource Packing", SIGCOMM 2014."""
    products: list[float] = []
    if largest.cpu_milli:
        products.append(shape.cpu_milli / largest.cpu_milli * (room.cpu / largest.cpu_milli))
    if largest.gpu_milli:
        products.append(asked(shape) / largest.gpu_milli * (room.idle / largest.gpu_milli))
    if largest.memory:
        products.append(shape.memory / largest.memory * (room.memory / largest.memory))
    return int(sum(products) / len(products) * MAX) if products else 0


def anywhere(room: Room, shape: Shape, largest: Largest) -> int:  # noqa: ARG001 - a score's form
    """Every node alike: what is left is to break the tie."""
    return 0
