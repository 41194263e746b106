"""Made-up traces with known distributions: the same options give the same jobs, byte for byte.

Arrivals and jobs are drawn from two streams of one seed, so that another load gives the same jobs at other times. Only
`Random.random` is used, whose sequence Python promises to keep; all else is computed from quantile functions.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import cos, isfinite, log, pi
from pathlib import Path
from random import Random
from typing import Literal

from ..errors import TraceError
from ..job import Shape
from .mixes import MIXES, Mix
from .trace import DEFAULT_PRIORITY, DEFAULT_QUEUE, TraceJob

Arrivals = Literal["poisson", "diurnal"]

MAX_JOBS = 100_000_000
_MAX_USERS = 100_000
_FRACTIONS = (250, 500)
"""Shares of a GPU, in thousandths, that jobs with a fraction ask for; equally likely."""
_DAY = 86400
_PEAK = 16 * 3600
_SWING = 0.8
"""Diurnal arrivals: rate x (1 + 0.8 cos) with the peak at 16:00, about the day of the Helios clusters."""
_TINY = 2.0**-54

EXAMPLE = Path(__file__).parent / "data" / "example.csv.gz"
"""The trace that is shipped: what `generate` makes by EXAMPLE_OPTIONS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to generate.

    Attributes:
        jobs: how many.
        seed: same seed and options, same jobs.
        load: GPU-seconds asked for over GPU-seconds that the cluster has while jobs arrive; 1 fills it.
        gpus: GPUs of the cluster that `load` refers to; no job asks for more.
        mix: sizes and run times, one of MIXES.
        arrivals: `poisson` at one rate, or `diurnal`, with nights.
        users: how many; the k-th most active submits in proportion to 1/k.
        queues: each user submits to one of them, in turn.
        fractions: share of the 1-GPU jobs that ask for a quarter or a half of a GPU instead.
        overestimate: None = no estimates; else estimate = run time x (1 + x), x exponential with this mean (0 = exact).
    """

    jobs: int = 2000
    seed: int = 0
    load: float = 0.9
    gpus: int = 64
    mix: str = "gavel"
    arrivals: Arrivals = "poisson"
    users: int = 20
    queues: Sequence[str] = (DEFAULT_QUEUE,)
    fractions: float = 0
    overestimate: float | None = None

    def check(self) -> None:
        """Refuse what cannot be generated.

        Raises:
            TraceError: an option is out of range; the message names it.
        """
        faults = {
            "--jobs": 0 < self.jobs <= MAX_JOBS or f"is {self.jobs}: give 1 to {MAX_JOBS:,}",
            "--load": (isfinite(self.load) and 0 < self.load <= 100) or f"is {self.load}: give above 0, such as 0.9",  # noqa: PLR2004 - beyond that a typing error
            "--gpus": self.gpus > 0 or f"is {self.gpus}: give 1 or more",
            "--mix": self.mix in MIXES or f"is {self.mix!r}: give one of {', '.join(MIXES)}",
            "--arrivals": self.arrivals in ("poisson", "diurnal") or f"is {self.arrivals!r}: give poisson or diurnal",
            "--users": 0 < self.users <= _MAX_USERS or f"is {self.users}: give 1 to {_MAX_USERS:,}",
            "--queues": (len(self.queues) > 0 and all(self.queues)) or "names no queue: give one or more",
            "--fractions": 0 <= self.fractions <= 1 or f"is {self.fractions}: give a share from 0 to 1",
            "--overestimate": self.overestimate is None
            or (isfinite(self.overestimate) and self.overestimate >= 0)
            or f"is {self.overestimate}: give 0 or more",
        }
        for option, fault in faults.items():
            if isinstance(fault, str):
                raise TraceError(f"{option} {fault}")


EXAMPLE_OPTIONS = Options(
    jobs=2000, seed=1, load=1.1, gpus=432, mix="helios", arrivals="diurnal", users=24, queues=("research", "product")
)


def generate(options: Options) -> Iterator[TraceJob]:
    """Jobs by these options, one at a time: a million need no memory.

    Raises:
        TraceError: an option is out of range.
    """
    options.check()
    return _generate(options, MIXES[options.mix].within(options.gpus))


def _generate(options: Options, mix: Mix) -> Iterator[TraceJob]:
    draw = Random(f"jobs {options.seed}").random  # noqa: S311 - a simulation, no secret
    rate = options.load * options.gpus / mix.mean_gpu_seconds()
    times = _arrivals(options, rate, Random(f"arrivals {options.seed}").random)  # noqa: S311 - likewise
    bounds = list(accumulate(share for _, share, _ in mix.sizes))[:-1]
    runs = [size[2].at for size in mix.sizes]
    shapes = [Shape(num_nodes=0, gpus=size[0]) for size in mix.sizes]
    pieces = [Shape(gpu_milli=milli) for milli in _FRACTIONS]
    weights = list(accumulate(1 / rank for rank in range(1, options.users + 1)))
    people = _people(options)
    for index, submitted in zip(range(options.jobs), times, strict=False):
        size = bisect(bounds, draw())
        duration = max(1, round(runs[size](draw() or _TINY)))
        user, queue = people[bisect(weights, draw() * weights[-1], 0, len(people) - 1)]
        shape = shapes[size]
        if options.fractions and shape.gpus == 1 and draw() < options.fractions:
            shape = pieces[int(draw() * len(pieces))]
        estimate = None
        if options.overestimate is not None:
            estimate = round(duration * (1 - options.overestimate * log(1 - draw())))
        yield TraceJob(index, f"job-{index}", submitted, duration, shape, user, queue, DEFAULT_PRIORITY, estimate)


def _people(options: Options) -> list[tuple[str, str]]:
    width = len(str(options.users))
    return [
        (f"user-{rank:0{width}}", options.queues[(rank - 1) % len(options.queues)])
        for rank in range(1, options.users + 1)
    ]


def _arrivals(options: Options, rate: float, draw: Callable[[], float]) -> Iterator[int]:
    """Whole seconds of submission; the first is 0. Nights are made by thinning (Lewis and Shedler, 1979)."""
    diurnal = options.arrivals == "diurnal"
    fastest = rate * (1 + _SWING) if diurnal else rate
    now = 0.0
    yield 0
    while True:
        now -= log(1 - draw()) / fastest
        if diurnal and draw() * (1 + _SWING) > 1 + _SWING * cos(2 * pi * (now - _PEAK) / _DAY):
            continue
        yield int(now)
