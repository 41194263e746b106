"""A small made-up cluster and list of pods in the files of Alibaba's cluster-trace-gpu-v2023, to try the command on.

Nodes and pods have about the proportions that the paper prints; nothing of the trace itself is in them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from random import Random

NODES = (
    (27, 96000, 393216, 8, "G2"),
    (20, 96000, 524288, 2, "T4"),
    (6, 16000, 122880, 2, "P100"),
    (4, 64000, 262144, 8, "V100"),
)
"""(how many, thousandths of a CPU, MiB, GPUs, type)."""
PODS = (
    (13, 8000, 16384, 0, 0, ""),
    (12, 4000, 15360, 1, 250, ""),
    (10, 6000, 12288, 1, 460, ""),
    (9, 8000, 30720, 1, 800, ""),
    (6, 4000, 16384, 1, 500, "T4"),
    (34, 12000, 49152, 1, 1000, ""),
    (11, 8000, 61440, 1, 1000, "G2|V100"),
    (2, 16000, 122880, 2, 1000, ""),
    (1, 32000, 131072, 4, 1000, ""),
    (2, 88000, 327680, 8, 1000, ""),
)
"""(weight, thousandths of a CPU, MiB, GPUs, thousandths of each, types)."""
COUNT = 400
SEED = 1


def write_sample(folder: Path) -> tuple[Path, Path]:
    """Write both files, always the same; the paths of the nodes and of the pods."""
    random = Random(SEED)  # noqa: S311 - a sample, no secret
    kinds = random.choices(PODS, [kind[0] for kind in PODS], k=COUNT)
    machines = [kind[1:] for kind in NODES for _ in range(kind[0])]
    nodes, pods = folder / "sample_node_list.csv", folder / "sample_pod_list.csv"
    _write(
        nodes,
        ("sn", "cpu_milli", "memory_mib", "gpu", "model"),
        ((f"node-{number:03}", *machine) for number, machine in enumerate(machines)),
    )
    _write(
        pods,
        ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec"),
        ((f"pod-{number:04}", *kind[1:]) for number, kind in enumerate(kinds)),
    )
    return nodes, pods


def _write(file: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
