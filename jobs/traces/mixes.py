"""What generated jobs are drawn from: shares of GPU counts and run times, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from statistics import NormalDist
from typing import Protocol

_STANDARD = NormalDist()
_POINTS = 4096
_HOUR = 3600
_DAY = 24 * _HOUR


class RunTimes(Protocol):
    """A distribution of run times, by its quantile function."""

    def at(self, u: float) -> float:
        """Run time in seconds that a share `u` of the jobs does not exceed; 0 < u < 1."""
        ...


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Log-normal run times with a floor and a ceiling.

    Attributes:
        median: in seconds. sigma: standard deviation of the natural logarithm.
        least, most: shorter and longer ones are set to these, in seconds.
    """

    median: float
    sigma: float
    least: float = 1
    most: float = 2 * _DAY

    def at(self, u: float) -> float:
        """See RunTimes."""
        return min(self.most, max(self.least, self.median * exp(self.sigma * _STANDARD.inv_cdf(u))))


@dataclass(frozen=True, slots=True)
class LogLinear:
    """Run times whose logarithm is uniform between knots.

    Attributes:
        knots: (share of jobs, run time in seconds), both rising, from share 0 to share 1.
    """

    knots: tuple[tuple[float, float], ...]

    def at(self, u: float) -> float:
        """See RunTimes."""
        low, start = self.knots[0]
        for high, end in self.knots[1:]:
            if u <= high:
                return start * exp(log(end / start) * (u - low) / (high - low))
            low, start = high, end
        return start


@dataclass(frozen=True, slots=True)
class Mix:
    """A population of jobs.

    Attributes:
        source: where the figures come from.
        sizes: (GPUs, share of the jobs, their run times).
    """

    source: str
    sizes: tuple[tuple[int, float, RunTimes], ...]

    def within(self, gpus: int) -> Mix:
        """The same without jobs of more than `gpus` GPUs; the other shares grow."""
        fitting = [size for size in self.sizes if size[0] <= gpus]
        total = sum(share for _, share, _ in fitting)
        return Mix(self.source, tuple((count, share / total, runs) for count, share, runs in fitting))

    def mean_gpu_seconds(self) -> float:
        """Mean GPU-seconds of a job, by the midpoint rule on each quantile function."""
        return sum(
            gpus * share * sum(runs.at((i + 0.5) / _POINTS) for i in range(_POINTS)) / _POINTS
            for gpus, share, runs in self.sizes
        )


_GAVEL_RUNS = LogLinear(((0, 60 * 10**1.5), (0.8, 60 * 10**3), (1, 60 * 10**4)))

MIXES: dict[str, Mix] = {
    "gavel": Mix(
        "workload generator of Narayanan et al., 'Heterogeneity-Aware Cluster Scheduling Policies for Deep Learning "
        "Workloads' (Gavel), OSDI 2020: 10^U(1.5, 3) minutes with probability 0.8, else 10^U(3, 4)",
        ((1, 0.70, _GAVEL_RUNS), (2, 0.10, _GAVEL_RUNS), (4, 0.15, _GAVEL_RUNS), (8, 0.05, _GAVEL_RUNS)),
    ),
    "helios": Mix(
        "fitted to the GPU jobs of cluster Venus in Hu et al., 'Characterization and Prediction of Deep Learning "
        "Workloads in Large-Scale GPU Datacenters' (Helios), SC 2021: log-normal for each size, cut at 48 hours",
        (
            (1, 0.49, LogNormal(321, 2.58)),
            (2, 0.05, LogNormal(602, 3.04)),
            (4, 0.08, LogNormal(369, 2.86)),
            (8, 0.28, LogNormal(317, 2.42)),
            (16, 0.06, LogNormal(706, 2.99)),
            (24, 0.01, LogNormal(245, 2.37)),
            (32, 0.03, LogNormal(488, 3.20)),
        ),
    ),
    "philly": Mix(
        "fitted to the job table of Jeon et al., 'Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training "
        "Workloads' (Philly), ATC 2019: log-normal for each size, cut at 53 days",
        (
            (1, 0.944, LogNormal(685, 2.03, most=53 * _DAY)),
            (2, 0.026, LogNormal(62, 3.01, most=53 * _DAY)),
            (4, 0.018, LogNormal(20540, 2.30, most=53 * _DAY)),
            (8, 0.012, LogNormal(12460, 2.75, most=53 * _DAY)),
        ),
    ),
    "itp": Mix(
        "fitted to the seven clusters of Gu et al., 'ElasticFlow: An Elastic Serverless Training Platform for "
        "Distributed Deep Learning', ASPLOS 2023: log-normal for each size, 10 minutes to 18 days",
        (
            (1, 0.834, LogNormal(7190, 1.25, 600, 18 * _DAY)),
            (2, 0.018, LogNormal(4675, 1.40, 600, 18 * _DAY)),
            (4, 0.026, LogNormal(11850, 1.87, 600, 18 * _DAY)),
            (8, 0.111, LogNormal(11850, 1.46, 600, 18 * _DAY)),
            (16, 0.006, LogNormal(11610, 1.67, 600, 18 * _DAY)),
            (32, 0.003, LogNormal(12090, 1.76, 600, 18 * _DAY)),
            (64, 0.002, LogNormal(17680, 1.63, 600, 18 * _DAY)),
        ),
    ),
}
"""Name -> mix."""
