"""A small made-up job file, cluster and sample of GPU times in the formats of Tiresias's simulator.

Sizes, models and run times have about the proportions that the paper tells of; nothing of its data is in them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from random import Random

SEED = 19
COUNT = 160
SIZES = ((1, 55), (2, 15), (4, 15), (8, 12), (16, 3))
"""(GPUs, weight)."""
MODELS = ("vgg19", "vgg16", "vgg11", "alexnet", "resnet152", "resnet101", "resnet50", "inception4", "inception3")
SPAN = 18_000
"""Seconds in which the jobs arrive: the cluster is then asked for somewhat more than it has."""
CLUSTER = (1, 4, 8, 64, 256)
SHORTEST, LONGEST = 120, 14_000
"""Seconds; run times are log-uniform between them."""


def write_sample(folder: Path) -> tuple[Path, Path, Path]:
    """Write the three files, always the same; the paths of the jobs, the cluster and the sample."""
    random = Random(SEED)  # noqa: S311 - a sample, no secret
    arrivals = sorted(int(SPAN * random.random()) for _ in range(COUNT))
    rows = []
    for number, at in enumerate(arrivals):
        pause = arrivals[number + 1] - at if number + 1 < COUNT else 60
        gpus = random.choices([size for size, _ in SIZES], [weight for _, weight in SIZES])[0]
        runs = _log_uniform(random, SHORTEST, LONGEST)
        rows.append((number, gpus, at - arrivals[0], runs * 2, random.choice(MODELS), runs, pause))
    jobs, cluster, sample = folder / "sample_job.csv", folder / "n4g8.csv", folder / "sample_gput.csv"
    _write(jobs, ("job_id", "num_gpu", "submit_time", "iterations", "model_name", "duration", "interval"), rows)
    _write(cluster, ("num_switch", "num_node_p_switch", "num_gpu_p_node", "num_cpu_p_node", "mem_p_node"), [CLUSTER])
    needed = sorted(_log_uniform(random, SHORTEST, LONGEST) * random.choice((1, 1, 2, 4, 8)) for _ in range(1000))
    _write(sample, ("duration",), ((value,) for value in needed))
    return jobs, cluster, sample


def _log_uniform(random: Random, low: int, high: int) -> int:
    return int(low * (high / low) ** random.random())


def _write(file: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
