"""What a sweep does to a trace before it is replayed: other arrivals for another load, resampled ones for a seed.

Jobs are never changed, only their times of submission: comparing loads compares the same work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from ...jobs.errors import TraceError
from ...jobs.traces.generate import Options, generate
from ...jobs.traces.trace import Trace, TraceJob

GENERATED = "generate:"
"""What a TRACE begins with that is made up rather than read."""
_NUMBERS = {"jobs": int, "load": float, "gpus": int, "users": int, "fractions": float, "overestimate": float}
_WORDS = ("mix", "arrivals")
_OPTIONS = (*_NUMBERS, *_WORDS, "queues")


def generator_options(
    spec: str, gpus: int, *, seed: int = 0, load: float | None = None, more: Iterable[tuple[str, str]] = ()
) -> Options:
    """The options of `generate:jobs=2000,load=0.9,mix=helios`; what is left out is as in `gpusched trace generate`.

    Args:
        spec: the text; several queues are separated by `+`.
        gpus: GPUs of the cluster that it is made for, unless the spec says other.
        seed: what it is drawn from; the spec cannot say it, because seeds are what a study varies.
        load: offered load that takes the place of the spec's own.
        more: further (option, value) that take the place of the spec's own.

    Raises:
        TraceError: an option is unknown or out of range; the message names it.
    """
    given: dict[str, object] = {"gpus": gpus, "seed": seed}
    own = [part.partition("=") for part in spec.removeprefix(GENERATED).split(",") if part.strip()]
    for key, equals, text in (*own, *((key, "=", text) for key, text in more)):
        option = key.strip()
        if option == "seed":
            raise TraceError(f"{spec}: seed is not among its options", hint="give --seed N, or --seeds N for several")
        if option not in _OPTIONS or not equals:
            raise TraceError(f"{spec}: there is no option {option!r}", hint=f"the options are {', '.join(_OPTIONS)}")
        given[option] = _option(spec, option, text.strip())
    if load is not None:
        given["load"] = load
    options = Options(**given)  # type: ignore[arg-type]  # each value was read as its option's type
    options.check()
    return options


def _option(spec: str, option: str, text: str) -> object:
    if option == "queues":
        return tuple(text.split("+"))
    if option in _WORDS:
        return text
    try:
        return _NUMBERS[option](text)
    except ValueError:
        raise TraceError(f"{spec}: {option} {text!r} is no number", hint=f"such as {option}=2") from None


def generated(options: Options, name: str) -> Trace:
    """A made-up trace, whole."""
    return Trace(list(generate(options)), name, "generate")


def offered_load(jobs: Sequence[TraceJob], gpus: int) -> float | None:
    """GPU time submitted, of the GPU time that a cluster has from the first submission to the last; 1 fills it.

    Jobs of more GPUs than there are do not count: they are rejected. None where all jobs arrive at once.
    """
    if not jobs or gpus <= 0 or (span := jobs[-1].submitted - jobs[0].submitted) <= 0:
        return None
    asked = sum(job.duration * need for job in jobs if (need := job.shape.total_gpus) <= gpus)
    return asked / (gpus * span)


def at_load(trace: Trace, gpus: int, load: float) -> Trace:
    """The same jobs, with arrivals so much closer or further apart that the offered load is `load`.

    Raises:
        TraceError: the trace has no load that could be scaled.
    """
    own = offered_load(trace.jobs, gpus)
    if not own:
        raise TraceError(
            f"{trace.name}: its load cannot be scaled: all jobs arrive at once, or none asks for a GPU that there is",
            hint="give a trace whose jobs arrive over time",
        )
    return at_rate(trace, load / own)


def at_rate(trace: Trace, rate: float) -> Trace:
    """The same jobs, arriving `rate` times as fast. A trace in whole seconds stays in whole seconds."""
    if rate == 1:
        return trace
    whole = all(isinstance(job.submitted, int) for job in trace.jobs)
    jobs = [
        job._replace(submitted=round(job.submitted / rate) if whole else job.submitted / rate) for job in trace.jobs
    ]
    return replace(trace, jobs=jobs)


def resampled(trace: Trace, block: float, seed: int) -> Trace:
    """A bootstrap of the trace: its blocks of time, drawn with replacement (Carlstein, Annals of Statistics 1986).

    The time of submission is cut into blocks of `block` seconds; each place takes a block drawn from the seed, with all
    jobs that were submitted in it at their offsets. Blocks of a day keep the daily pattern and the bursts of a user.
    A job that is drawn again gets `#2` and so on after its name.

    Raises:
        TraceError: there are fewer than two blocks, so every draw is the trace itself.
    """
    jobs = trace.jobs
    span = jobs[-1].submitted - jobs[0].submitted if jobs else 0
    count = int(span // block) + 1
    if count < 2:  # noqa: PLR2004 - one block is the trace itself
        raise TraceError(
            f"{trace.name}: has arrivals over {span:,.0f} s, which is one block of {block:,.0f} s",
            hint="give --bootstrap a time that is a small part of the trace",
        )
    blocks: list[list[TraceJob]] = [[] for _ in range(count)]
    start = jobs[0].submitted
    for job in jobs:
        blocks[int((job.submitted - start) // block)].append(job)
    draw = Random(f"blocks {seed}").random  # noqa: S311 - a simulation, no secret
    step = int(block) if block == int(block) else block
    seen: dict[int, int] = {}
    found: list[TraceJob] = []
    for place in range(count):
        taken = int(draw() * count)
        for job in blocks[taken]:
            seen[job.id] = times = seen.get(job.id, 0) + 1
            name = f"{job.name}#{times}" if times > 1 else job.name
            found.append(job._replace(name=name, submitted=job.submitted + (place - taken) * step))
    if not found:
        raise TraceError(f"{trace.name}: no job was drawn from seed {seed}", hint="give --bootstrap a longer time")
    first = found[0].submitted
    renumbered = [job._replace(id=i, submitted=job.submitted - first) for i, job in enumerate(found)]
    return replace(trace, jobs=renumbered)
