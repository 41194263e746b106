"""Alibaba's openb pods, `openb_pod_list_*.csv` of cluster-trace-gpu-v2023.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", ATC 2023.

Quirks: gpu_milli is a share of one GPU and counts when num_gpu is 1; gpu_spec is a list of types parted by `|`, some
with an entry twice; scheduled_time is empty for pods that never were scheduled; some pods ask for no GPU. A pod runs
from scheduled_time to deletion_time; one that never was scheduled is taken to need its whole life in the trace, since
the pods that found no place are those that a scheduler should be tried on. All are counted.
The machines of the same trace are a cluster: `cluster/inventory.py` reads them.
"""

from __future__ import annotations

from sys import intern

from .builder import Builder
from .options import Options
from .source import Source
from .table import Table
from .trace import Trace, counted
from .values import CellError, instant, whole

NAME = "openb"
_WHOLE_GPU = 1000
_MIB = 1 << 20
_MAX_CPU_MILLI = 10**9
_MAX_MIB = 1 << 40


def recognises(columns: list[str]) -> bool:
    """Whether these are the columns of a pod list."""
    return {"name", "num_gpu", "gpu_milli", "creation_time", "deletion_time"} <= set(columns)


def read(source: Source, options: Options) -> Trace:
    """Read an openb pod list.

    Raises:
        TraceError: a column is missing or a cell cannot be read.
    """
    table = Table(source)
    builder = Builder(source.name, options)
    name, cpu, memory = table.need("name"), table.need("cpu_milli"), table.need("memory_mib")
    num_gpu, gpu_milli, spec = table.need("num_gpu"), table.need("gpu_milli"), table.find("gpu_spec")
    qos, phase = table.find("qos"), table.find("pod_phase")
    created, deleted, scheduled = table.need("creation_time"), table.need("deletion_time"), table.find("scheduled_time")
    types: dict[str, tuple[str, ...]] = {"": ()}
    for row in table.rows():
        try:
            gpus, milli = gpus_asked(row[num_gpu], row[gpu_milli])
            if not builder.keeps(gpus + milli):
                continue
            submitted = instant(row[created], "creation_time")
            if scheduled >= 0 and row[scheduled]:
                began = instant(row[scheduled], "scheduled_time")
            else:
                began = submitted
                builder.count("pods that never were scheduled kept, with their whole life as run time")
            wanted = row[spec].strip() if spec >= 0 else ""
            if wanted not in types:
                types[wanted] = tuple(dict.fromkeys(intern(kind) for kind in wanted.split("|") if kind))
            builder.add(
                table.line,
                row[name],
                submitted,
                _life(row[deleted], began),
                builder.ask(
                    gpus,
                    1,
                    gpu_milli=milli,
                    types=types[wanted],
                    cpu_milli=whole(row[cpu], "cpu_milli", _MAX_CPU_MILLI),
                    memory=whole(row[memory], "memory_mib", _MAX_MIB) * _MIB,
                ),
                queue=row[qos] if qos >= 0 else "",
                state=row[phase] if phase >= 0 else "",
            )
        except CellError as error:
            raise table.fault(error) from error
    twice = sum(len(kinds) != len(text.split("|")) for text, kinds in types.items() if text)
    if twice:
        builder.notes.append(counted(twice, "lists of GPU types named one twice; it counts once"))
    return builder.finish(NAME)


def gpus_asked(num_gpu: str, gpu_milli: str) -> tuple[int, int]:
    """Whole GPUs and thousandths of a shared one, from a pod's two cells.

    Raises:
        CellError: one is no count, or they do not go together.
    """
    gpus, milli = whole(num_gpu, "num_gpu"), whole(gpu_milli, "gpu_milli")
    if gpus == 1 and 0 < milli < _WHOLE_GPU:
        return 0, milli
    if milli not in (0, _WHOLE_GPU):
        raise CellError(
            "gpu_milli", f"{milli} for {gpus} GPUs makes no sense", "1 to 999 with num_gpu 1, else 1000 or 0"
        )
    return gpus, 0


def _life(deleted: str, began: float) -> float:
    duration = instant(deleted, "deletion_time") - began
    if duration < 0:
        raise CellError("deletion_time", f"{deleted!r} is before the pod's start", "mend or delete the row")
    return duration
