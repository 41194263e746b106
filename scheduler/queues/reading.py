"""From a queue file to a `Tree`: all of it, or every problem in it with its line and key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from pathlib import Path as FilePath
from types import MappingProxyType
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ...jobs.errors import Problem, SpecError
from ...jobs.spec.fields import Fault, Part
from ...jobs.spec.problems import Origin, Path
from ...jobs.yaml_faults import MAX_BYTES, MAX_PROBLEMS, YamlError, decode
from ...jobs.yaml_marks import Node, documents
from ...policies.tree import DEFAULT, Limits, PreemptionRules, QueueNode, Quota, Tree
from .checks import Link, check_cells, check_entries, check_lending, check_tree, check_use
from .model import MOST_QUEUES, QueueEntry, QueueFile

M = TypeVar("M", bound=Part)

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "cluster_queues": "queues",
        "partitions": "queues",
        "cohorts": "queues",
        "fair_weight": "weight",
        "shares": "weight",
        "share": "weight",
        "fairshare": "weight",
        "over_quota_weight": "weight",
        "quota": "nominal_quota",
        "deserved": "nominal_quota",
        "gpus": "nominal_quota",
        "nominal": "nominal_quota",
        "borrowing": "borrowing_limit",
        "lending": "lending_limit",
        "within_cluster_queue": "within_queue",
        "reclaim": "reclaim_within_cohort",
        "min_run_time": "min_runtime",
        "preempt_min_runtime": "min_runtime",
        "max_running_jobs": "limits.running_jobs",
        "max_gpus_per_user": "limits.per_user.gpus",
        "max_gpus_per_job": "limits.per_job.gpus",
        "stop_policy": "paused",
        "hold": "paused",
        "default": "default_queue",
        "users_weights": "users",
    }
)
"""What Kueue, KAI and Slurm call our keys, where no likeness of spelling would tell."""


def read_queues(path: str | FilePath) -> Tree:
    """The queues of a file. At most 1 MiB is read.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong. Carries every problem, in file order.
    """
    return parse_queues(read_text(path), file=str(path))


def read_text(path: str | FilePath) -> bytes:
    """A queue file as it is.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        with FilePath(path).open("rb") as source:
            return source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError([Problem(str(path), 0, 0, "", f"cannot be read: {reason}")]) from None


def parse_queues(text: str | bytes, *, file: str) -> Tree:
    """The queues of a YAML (or JSON) text.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    problems: list[Problem] = []
    tree: Tree | None = None
    try:
        roots = [root for root in documents(decode(text, file), file, problems) if not _empty(root)]
        if not roots:
            problems.append(Problem(file, 1, 1, "", "the file is empty", "write `queues:` and `- name: ...` below it"))
        problems += [
            Problem(file, extra.line, extra.column, "", "a second document", "one file is one tree")
            for extra in roots[1:]
        ]
        if roots:
            tree = _read(roots[0].value(), Origin(file, roots[0]), problems)
    except YamlError as error:
        problems.append(error.problem)
    if problems:
        raise SpecError(sorted(problems, key=lambda problem: (problem.line, problem.column))[:MAX_PROBLEMS])
    assert tree is not None, "a file without problems is a tree"
    return tree


def _empty(root: Node) -> bool:
    """Whether a document says nothing, as a `---` at the end of a file makes."""
    return root.kind == "scalar" and root.scalar is None


def _read(document: object, origin: Origin, problems: list[Problem]) -> Tree | None:
    top = _checked(QueueFile, document, (), origin, problems)
    listed = document.get("queues") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or listed is None:
        return None
    if not isinstance(listed, list) or not listed:
        message = "has no queue in it" if isinstance(listed, list) else "must be a list of queues"
        hint = "write `- name: ...`; to do without queues: `gpusched queues rollback 0`"
        problems.append(origin.problem(("queues",), message, hint))
        return None
    if len(listed) > MOST_QUEUES:
        problems.append(origin.problem(("queues",), f"has more than {MOST_QUEUES:,} queues"))
        return None
    entries: dict[int, QueueEntry] = {}
    links: list[Link] = []
    for number, found in enumerate(listed):
        named = _with_parent(found, number, origin, problems)
        links += _link(number, named)
        entry = _checked(QueueEntry, named, ("queues", number), origin, problems)
        if entry is not None:
            entries[number] = entry
    default = document.get("default_queue")
    default = default if isinstance(default, str) else ""
    problems += check_tree(links, default, origin)
    problems += check_entries(entries, origin)
    problems += check_cells(entries, () if top is None else top.topology, origin)
    if not problems:
        problems += check_lending(entries, origin)
    if problems or top is None:
        return None
    nodes = tuple(node_of(entry) for entry in entries.values())
    default = default or (DEFAULT if any(node.name == DEFAULT for node in nodes) else "")
    tree = Tree(nodes, default, top.topology)
    problems += check_use(tree, origin)
    return tree


def _link(number: int, found: object) -> list[Link]:
    """What the other entries need to know of this one; nothing if it has no name."""
    name, parent = (found.get("name"), found.get("parent")) if isinstance(found, Mapping) else (None, None)
    return [Link(number, name, parent if isinstance(parent, str) else "")] if isinstance(name, str) and name else []


def _with_parent(found: object, number: int, origin: Origin, problems: list[Problem]) -> object:
    """An entry with Kueue's word for its parent replaced by ours."""
    if not isinstance(found, Mapping) or "cohort" not in found:
        return found
    if "parent" in found:
        problems.append(
            origin.problem(
                ("queues", number, "cohort"), "is the same as `parent`, which is given too", "keep one", on_key=True
            )
        )
        return {key: value for key, value in found.items() if key != "cohort"}
    return {"parent" if key == "cohort" else key: value for key, value in found.items()}


def node_of(entry: QueueEntry) -> QueueNode:
    """A file's entry as a queue."""
    flavours = dict.fromkeys((*entry.nominal_quota, *entry.borrowing_limit, *entry.lending_limit))
    return QueueNode(
        name=entry.name,
        parent=entry.parent or "",
        weight=entry.weight,
        quotas=MappingProxyType(
            {
                flavour: Quota(
                    entry.nominal_quota.get(flavour, 0.0),
                    entry.borrowing_limit.get(flavour),
                    entry.lending_limit.get(flavour),
                )
                for flavour in flavours
            }
        ),
        preemption=PreemptionRules(
            entry.preemption.within_queue,
            entry.preemption.reclaim_within_cohort,
            entry.preemption.borrow_within_cohort,
        ),
        min_runtime=entry.min_runtime,
        grace=entry.grace,
        limits=Limits(
            running_jobs=entry.limits.running_jobs,
            user_gpus=entry.limits.per_user.gpus,
            user_running_jobs=entry.limits.per_user.running_jobs,
            job_gpus=entry.limits.per_job.gpus,
        ),
        priority_min=entry.priority.min,
        priority_max=entry.priority.max,
        non_preemptible_may_borrow=entry.non_preemptible_may_borrow,
        paused=entry.paused,
        users=MappingProxyType(dict(entry.users)),
        cells=MappingProxyType(dict(entry.cells)),
        submitters=entry.access.submit,
    )


# From a failed check to words -------------------------------------------------------------------------------------


def _checked(model: type[M], document: object, at: Path, origin: Origin, problems: list[Problem]) -> M | None:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems += islice(_problems_of(error, model, at, origin), MAX_PROBLEMS)
        return None


def _problems_of(error: ValidationError, model: type[BaseModel], at: Path, origin: Origin) -> Iterator[Problem]:
    for entry in error.errors(include_url=False, include_input=False):
        inner = entry["loc"]
        path = _as_written((*at, *inner), origin)
        if entry["type"] == "missing":
            yield origin.problem(path, "is required", f"write `{path[-1]}: ...`")
        elif entry["type"] == "extra_forbidden":
            yield origin.problem(path, "unknown key", _hint(model, inner), on_key=True)
        else:
            faults: list[Fault] = entry.get("ctx", {}).get("faults") or [Fault(entry["msg"])]
            for fault in faults:
                yield origin.problem((*path, *fault.at), fault.message, fault.hint, on_key=fault.on_key)


def _as_written(path: Path, origin: Origin) -> Path:
    """The path with `cohort` where the file says so."""
    if path[-1:] == ("parent",) and origin.root is not None and "cohort" in origin.root.find(path[:-1]).pairs:
        return (*path[:-1], "cohort")
    return path


def _hint(model: type[BaseModel], path: Path) -> str:
    for step in path[:-1]:
        annotation = model.model_fields[str(step)].annotation
        assert isinstance(annotation, type)
        model = annotation
    level = [info.alias or name for name, info in model.model_fields.items()]
    if model is QueueEntry:
        level.append("cohort")
    word = _snake(str(path[-1]))
    near = get_close_matches(word, level, n=1)
    meant = word if word in level else near[0] if near else ELSEWHERE.get(word)
    return f"did you mean `{meant}`?" if meant else f"known here: {', '.join(level)}"


def _snake(word: str) -> str:
    """Kueue's `nominalQuota` and Slurm's `min-runtime` as we would write them."""
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in word.replace("-", "_")).lstrip("_")
