"""The inputs of the inflation experiment: nodes and pods in the files of Alibaba's cluster-trace-gpu-v2023."""

from __future__ import annotations

from dataclasses import dataclass

from ...cluster.backend import Node
from ...cluster.inventory import read_cluster
from ...cluster.pool import WHOLE
from ...jobs.errors import TraceError
from ...jobs.job import Shape
from ...jobs.traces.alibaba import gpus_asked
from ...jobs.traces.source import Source
from ...jobs.traces.table import Table
from ...jobs.traces.values import MAX_CPU_MILLI, CellError, whole
from ...jobs.units import MAX_BYTES

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Inputs:
    """A cluster and the pods to draw from.

    Attributes:
        nodes: in order of name.
        pods: what each asks for, in order of its name.
        capacity: thousandths of GPUs of all nodes.
        notes: what was left out, in words.
    """

    nodes: tuple[Node, ...]
    pods: tuple[Shape, ...]
    capacity: int
    notes: tuple[str, ...] = ()


def read_inputs(nodes: str, pods: str, *, cpu_nodes: bool = False) -> Inputs:
    """Read both files. Nodes without a GPU are left out, as the authors do, unless `cpu_nodes`.

    Raises:
        TraceError, SpecError: a file cannot be read; or there is no GPU, or no pod that asks for one.
    """
    inventory = sorted(read_cluster(nodes), key=lambda node: node.name)
    kept = [node for node in inventory if node.gpus or cpu_nodes]
    capacity = sum(node.gpus for node in kept) * WHOLE
    if not capacity:
        raise TraceError(f"{nodes}: no node has a GPU", hint="give a list of nodes with GPUs, such as openb_node_list")
    found = _read_pods(pods)
    if not any(map(milli, found)):
        raise TraceError(f"{pods}: no pod asks for a GPU", hint="give a list of pods such as openb_pod_list_default")
    left_out = len(inventory) - len(kept)
    note = f"{left_out:,} nodes without a GPU left out, as in the paper's runs; --cpu-nodes keeps them"
    return Inputs(tuple(kept), found, capacity, (note,) if left_out else ())


def _read_pods(file: str) -> tuple[Shape, ...]:
    """Every pod, whenever it ran: unlike the trace's reader for replays this one looks at no time."""
    named: list[tuple[str, Shape]] = []
    with Source(file) as source:
        table = Table(source)
        name, cpu = table.need("name"), table.need("cpu_milli")
        num_gpu, gpu_milli = table.need("num_gpu"), table.need("gpu_milli")
        memory, spec = table.find("memory_mib"), table.find("gpu_spec")
        for row in table.rows():
            try:
                gpus, part = gpus_asked(row[num_gpu], row[gpu_milli])
                types = tuple(filter(None, row[spec].strip().split("|"))) if spec >= 0 and (gpus or part) else ()
                shape = Shape(
                    1,
                    gpus,
                    part,
                    types,
                    whole(row[cpu], "cpu_milli", MAX_CPU_MILLI),
                    whole(row[memory], "memory_mib", MAX_BYTES // _MIB) * _MIB if memory >= 0 else 0,
                )
            except CellError as error:
                raise table.fault(error) from error
            named.append((row[name], shape))
    return tuple([shape for _, shape in sorted(named, key=lambda pod: pod[0])])


def milli(pod: Shape) -> int:
    """Thousandths of GPUs that a pod asks for."""
    return pod.gpu_milli or pod.gpus * WHOLE
