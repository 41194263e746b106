"""From a failed check to words: which line, which key, what is wrong, and what was probably meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ..errors import Problem
from ..yaml_faults import key_path
from ..yaml_marks import Node
from .fields import Fault, Part
from .model import ALIASES, JobSpec

Path = tuple[str | int, ...]

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "command": "run",
        "commands": "run",
        "entrypoint": "run",
        "script": "run",
        "cpu": "resources.cpus",
        "gpu": "resources.accelerators",
        "gpus": "resources.accelerators",
        "mem": "resources.memory",
        "nodes": "num_nodes",
        "nnodes": "num_nodes",
        "replicas": "num_nodes",
        "envs": "env",
        "env_vars": "env",
        "environment": "env",
        "partition": "queue",
        "time": "max_duration",
        "timeout": "max_duration",
        "working_dir": "workdir",
        "chdir": "workdir",
        "grace_period": "checkpoint.grace",
        "retries": "retry.limit",
        "node_selector": "labels",
        "duration": "estimated_duration",
    }
)
"""What other tools call our keys, where no likeness of spelling would tell."""


@dataclass(slots=True)
class Origin:
    """Where a document came from, to name the place of its faults.

    Attributes:
        file: name of the file, or in words where there is none.
        root: its YAML with places; None when there is none.
        flags: key path -> the option that gave it, for values from the command line.
    """

    file: str
    root: Node | None = None
    flags: dict[Path, str] = field(default_factory=dict)

    def problem(self, path: Path, message: str, hint: str = "", *, on_key: bool = False) -> Problem:
        """A problem at `path`; `on_key` points at the key rather than at its value."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.flags:
                return Problem("command line", 0, 0, self.flags[path[:length]], message, hint)
        if self.root is None:
            return Problem(self.file, 0, 0, key_path(path), message, hint)
        node = self.root.find(path, key=on_key)
        if path and node.start == node.end:  # an empty value stands nowhere: its key does
            node = self.root.find(path, key=True)
        return Problem(self.file, node.line, node.column, key_path(path), message, hint)


def problems_of(error: ValidationError, origin: Origin) -> Iterator[Problem]:
    """Every fault in `error`, in words."""
    for entry in error.errors(include_url=False, include_input=False):
        on_key = entry["loc"][-1:] == ("[key]",)
        path = entry["loc"][:-1] if on_key else entry["loc"]
        path = _as_written(path, origin)
        if entry["type"] == "missing":
            example = f"write `{path[-1]}: ...`"
            yield origin.problem(path, "is required", example)
        elif entry["type"] == "extra_forbidden":
            message, hint = _unknown(path)
            yield origin.problem(path, message, hint, on_key=True)
        else:
            faults: list[Fault] = entry.get("ctx", {}).get("faults") or [Fault(entry["msg"])]
            for fault in faults:
                yield origin.problem((*path, *fault.at), fault.message, fault.hint, on_key=on_key or fault.on_key)


def _as_written(path: Path, origin: Origin) -> Path:
    """The path with the name that the file uses, where a key has two."""
    if origin.root is not None and path:
        for alias, name in ALIASES.items():
            if path[0] == name and name not in origin.root.pairs and alias in origin.root.pairs:
                return (alias, *path[1:])
    return path


def _unknown(path: Path) -> tuple[str, str]:
    key = str(path[-1])
    if len(path) == 1 and key in ALIASES:
        return f"is the same as `{ALIASES[key]}`, which is given too", "keep one of them"
    level = keys_at(JobSpec, path[:-1])
    word = key.lower().replace("-", "_")
    near = get_close_matches(word, level, n=1)
    meant = ELSEWHERE.get(word) or _OTHER_LEVELS.get(word) or (near[0] if near else "")
    return "unknown key", f"did you mean `{meant}`?" if meant else f"known here: {', '.join(level)}"


def keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that a file may use in the mapping at `path`."""
    for step in path:
        if isinstance(step, int):
            continue  # one of a list, whose entries are alike
        model = _part(
            next(info.annotation for name, info in model.model_fields.items() if (info.alias or name) == step)
        )
    keys = [info.alias or name for name, info in model.model_fields.items()]
    return [*keys, *ALIASES] if model is JobSpec else keys


def _part(annotation: Any) -> type[Part]:  # noqa: ANN401 - as pydantic has it
    """The part that a key holds: by itself, in a list, or left out at will."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next(_part(one) for one in get_args(annotation) if one not in {type(None), Ellipsis})


def _paths(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, info in model.model_fields.items():
        yield name, prefix + name
        annotation: Any = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, Part):
            yield from _paths(annotation, f"{name}.")


_OTHER_LEVELS = dict(_paths(JobSpec, ""))
"""Last part of a key path -> the whole path: finds a key that is right but in the wrong mapping."""
