"""`gpusched bench fgd`: the six rules of the paper over ten seeds, as means and confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...jobs.errors import NotFoundError
from ...policies.fragmentation import COVER, Fragmentation, TaskClass, classes_of
from ...policies.place import PLACERS, Placer
from ...policies.placers import Fgd, Scored
from ...policies.placers.scored import Ties
from ..report.aggregate import Estimate
from .inflation import LOAD, Progress, Run, inflate
from .openb import Inputs

RULES = {
    "random": "Random",
    "dot_product": "DotProd",
    "gpu_clustering": "Clustering",
    "gpu_packing": "Packing",
    "vector_best_fit": "BestFit",
    "fgd": "FGD",
}
"""The rules of the paper: our name -> the paper's."""
SEEDS = 10
FIRST_SEED = 42
JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be run.

    Attributes:
        rules: names of placements.
        seeds: of the runs of each rule.
        load: GPUs asked for in the end, of those there are.
        cover: share of the pods whose classes F counts.
        ties: how rules by score choose between equal nodes.
    """

    rules: tuple[str, ...] = tuple(RULES)
    seeds: tuple[int, ...] = tuple(range(FIRST_SEED, FIRST_SEED + SEEDS))
    load: float = LOAD
    cover: float = COVER
    ties: Ties = "name"


@dataclass(frozen=True, slots=True)
class Result:
    """One rule, all seeds."""

    rule: str
    runs: tuple[Run, ...]


def run(inputs: Inputs, asked: Asked, progress: Progress | None = None) -> list[Result]:
    """Run all rules over all seeds.

    Raises:
        NotFoundError: there is no such rule.
    """
    unknown = [rule for rule in asked.rules if rule not in PLACERS]
    if unknown:
        raise NotFoundError(f"no placement named {unknown[0]!r}", hint=f"one of {', '.join(PLACERS)}")
    classes = classes_of(inputs.pods, asked.cover)
    metric = Fragmentation(classes)
    results: list[Result] = []
    for rule in asked.rules:
        runs: list[Run] = []
        for seed in asked.seeds:
            runs.append(inflate(inputs, _placer(rule, classes, asked.ties, seed), seed, metric, load=asked.load))
            if progress is not None:
                progress(len(results) * len(asked.seeds) + len(runs), len(asked.rules) * len(asked.seeds))
        results.append(Result(rule, tuple(runs)))
    return results


def _placer(rule: str, classes: Sequence[TaskClass], ties: Ties, seed: int) -> Placer:
    placer = PLACERS[rule]
    if not isinstance(placer, Scored):
        return placer
    ties = "random" if placer.ties == "random" else ties
    return Fgd(classes, ties=ties, seed=seed) if isinstance(placer, Fgd) else placer.varied(ties=ties, seed=seed)


def rows(results: Sequence[Result]) -> list[JSON]:
    """One row a rule: figures when as many GPUs were asked for as there are, and at the end, then the whole curves."""
    found: list[JSON] = []
    for result in results:
        runs = result.runs
        found.append(
            {
                "rule": result.rule,
                "paper": RULES.get(result.rule, ""),
                "seeds": len(runs),
                "allocation_at_full_load": _mean([_at_full(run.allocation) for run in runs]),
                "allocation_at_end": _mean([run.allocation_at_end for run in runs]),
                "fragmentation_rate_at_full_load": _mean([_at_full(run.fragmentation_rate) for run in runs]),
                "pods": _mean([run.pods for run in runs]),
                "dropped": _mean([run.dropped for run in runs]),
                "runs": [
                    {
                        "seed": run.seed,
                        "pods": run.pods,
                        "dropped": run.dropped,
                        "allocation_at_full_load": _at_full(run.allocation),
                        "allocation_at_end": run.allocation_at_end,
                        "fragmentation_rate_at_full_load": _at_full(run.fragmentation_rate),
                    }
                    for run in runs
                ],
                "curve": curve(result),
            }
        )
    return found


def curve(result: Result) -> list[JSON]:
    """One row a whole percent of the load: means over seeds of the allocation ratio and the fragments."""
    steps = range(len(result.runs[0].allocation))
    return [
        {
            "rule": result.rule,
            "load": at / 100,
            "allocation": _mean([run.allocation[at] for run in result.runs]),
            "fragmentation_rate": _mean([run.fragmentation_rate[at] for run in result.runs]),
            "fragments": _mean([run.fragments[at] for run in result.runs]),
        }
        for at in steps
    ]


def _at_full(values: Sequence[float | None]) -> float | None:
    """When 100 % had arrived; None when the run ended before."""
    return values[100] if len(values) > 100 else None  # noqa: PLR2004 - percent


def _mean(values: Sequence[float | None]) -> JSON | None:
    """Mean over the seeds that have a value, and half the width of its 95 % confidence interval (None for one seed)."""
    found = Estimate.of(value for value in values if value is not None)
    return None if found is None else {"mean": found.mean, "half": found.half, "n": found.n}
