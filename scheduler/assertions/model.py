"""What an assertion file may say, key by key: each value with its check and its words when it fails."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ...jobs.spec.fields import ApiVersion, Duration, FilledText, Part, choice, refuse, shown, whole
from .kinds import percent_of

MOST_ASSERTIONS = 1000
MOST_SEEDS = 1000


def _names(value: object) -> tuple[str, ...]:
    """One name or a list of them."""
    listed: list[Any] = value if isinstance(value, list) else [value]
    if not listed:
        raise refuse("names none", "write one name, or a list of names")
    for name in listed:
        if not isinstance(name, str) or not name.strip():
            raise refuse(f"must be a name or a list of names, not {shown(name)}")
    if len(set(listed)) < len(listed):
        raise refuse("names one twice", "once is enough")
    return tuple(name.strip() for name in listed)


def _text(value: object) -> str:
    """Text; a number is taken as it would be written, for users and queues may be called 7."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise refuse(f"must be text, not {shown(value)}")
    return str(value)


def _sizes(value: object) -> tuple[int, int | None]:
    """GPUs of a job: `8`, `2-4`, or `8+`; the second number is the last that counts, None = any."""
    text = _text(value).strip()
    first, dash, last = text.partition("-")
    open_end = text.endswith("+")
    first = first.removesuffix("+").strip()
    if not first.isdecimal() or (dash and not last.strip().isdecimal()):
        raise refuse(f"must be GPUs of a job, not {shown(value)}", "write it like 1, 2-4 or 8+")
    low = int(first)
    high = None if open_end else int(last) if dash else low
    if high is not None and high < low:
        raise refuse(f"{shown(value)} is the wrong way round", f"write {high}-{low}")
    return low, high


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Label = Annotated[str, BeforeValidator(_text)]
Sizes = Annotated[tuple[int, int | None], BeforeValidator(_sizes)]
Percent = Annotated[float, BeforeValidator(percent_of)]


class TraceEntry(Part):
    """The trace, and how it is read."""

    file: FilledText = Field(description="A file of any format that `simulate` reads, or generate:OPTION=VALUE,...")
    format: FilledText | None = Field(default=None, description="Its format. Left out: told by the content.")
    columns: FilledText | None = Field(default=None, description="Columns of a CSV, as FIELD=COLUMN,...")
    gang: Annotated[Literal["total", "nodes"], choice("total", "nodes")] = Field(
        default="total", description="Whether a job's GPUs go where they fit or on as many nodes as the trace says."
    )
    resources: Annotated[Literal["gpus", "all"], choice("gpus", "all")] = Field(
        default="gpus", description="Whether CPUs and memory are asked for too."
    )


class AssertionEntry(Part):
    """One assertion, but for its bounds, which depend on the metric."""

    name: FilledText | None = Field(default=None, description="What it is called. Left out: what it says.")
    metric: FilledText = Field(description="What is measured.")
    policy: Names | None = Field(default=None, description="Under these of the policies only.")
    queue: Label | None = Field(default=None, description="Jobs of this queue, or of those below it.")
    user: Label | None = Field(default=None, description="Jobs of this user.")
    gpus: Sizes | None = Field(default=None, description="Jobs of so many GPUs: 1, 2-4, 8+.")
    window: FilledText | None = Field(default=None, description="Jobs of this window, as `simulate --window` has it.")
    below: object = Field(default=None, description="It is less than this.")
    at_most: object = Field(default=None, description="It is no more than this.")
    above: object = Field(default=None, description="It is more than this.")
    at_least: object = Field(default=None, description="It is no less than this.")
    at_most_worse: Percent | None = Field(default=None, description="It is at most so much worse than under `than`.")
    at_least_better: Percent | None = Field(
        default=None, description="It is better by at least so much than under `than`."
    )
    than: FilledText | None = Field(default=None, description="The policy that it is compared with.")


class AssertionFile(Part):
    """The whole file, but for `assert`, whose entries are checked one by one."""

    api_version: ApiVersion = Field(default="gpusched/v1", alias="apiVersion", description="Version of this format.")
    kind: Annotated[Literal["PolicyTest"], choice("PolicyTest")] = Field(
        default="PolicyTest", description="What the file holds."
    )
    trace: object = Field(default=None, description="The trace: a path, or `file` and how it is read.")
    cluster: FilledText | None = Field(default=None, description="NxG[:TYPE],... or a file of nodes.")
    policies: Names | None = Field(default=None, description="The policies, each of which every assertion is about.")
    queues: FilledText | None = Field(default=None, description="The queue file.")
    profile: FilledText | None = Field(default=None, description="Costs and failures of the cluster.")
    start_up: Duration | None = Field(default=None, description="From a start to the first second of work.")
    estimates: Annotated[Literal["exact", "trace", "none"], choice("exact", "trace", "none")] = Field(
        default="exact", description="What policies are told of run times."
    )
    seed: Annotated[int, BeforeValidator(whole(0, 2**31))] = Field(default=0, description="Of all chance.")
    seeds: Annotated[int, BeforeValidator(whole(1, MOST_SEEDS))] = Field(
        default=1, description="So many runs, from `seed` on. An assertion has to hold in each."
    )
    window: FilledText = Field(default="full", description="Which jobs are measured.")
    assertions: object = Field(alias="assert", default=None, description="A list of assertions.")
