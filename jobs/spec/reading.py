"""From what a user wrote, a file, a script, options or plain data, to `JobSpec`: all of it or every problem in it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path as FilePath

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from ..errors import Problem, SpecError
from ..yaml_faults import MAX_BYTES, MAX_PROBLEMS, YamlError, decode, stop, too_many
from ..yaml_marks import Node, documents, resolve
from .environment import MASK
from .fields import clean_name
from .model import ALIASES, JobSpec
from .problems import Origin, Path, problems_of
from .scripts import directives, is_script
from .writing import to_yaml

MAX_JOBS = 10_000
"""Jobs in one file."""

_TEXT_KEYS = frozenset({"env", "secrets", "labels", "annotations"})
"""Below these keys a scalar is text as it is written: 1.10 stays 1.10, `no` stays no."""
_OPTION_TEXT = _TEXT_KEYS | {"run", "name", "setup", "workdir", "queue", "user", "checkpoint"}
"""Options below these keys are taken as they are; others are read as a file would read them."""


def read_job_file(
    path: str | FilePath,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[JobSpec]:
    """The jobs of a file: YAML or JSON, or a script with `#GPUSCHED key: value` lines. At most 1 MiB is read.

    Args:
        path: the file.
        environ: where secrets given by name are looked up; None = this process's environment.
        options: key path (`resources.accelerators`) -> value that wins over the file; None values do not count.
        names: key path -> the option as the user typed it (`--gpus`), for messages.

    Raises:
        SpecError: the file cannot be read, or anything in it is wrong. Carries every problem.
    """
    file = str(path)
    try:
        with FilePath(path).open("rb") as source:
            data = source.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError([Problem(file, 0, 0, "", f"cannot be read: {reason}")]) from None
    if is_script(FilePath(path).suffix, data):
        return [read_script(data, file=file, environ=environ, options=options, names=names)]
    return read_jobs(data, file=file, environ=environ, options=options, names=names)


def read_jobs(
    text: str | bytes,
    *,
    file: str,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[JobSpec]:
    """The jobs of a YAML (or JSON) text, one or more documents, all or none. The rest is as in `read_job_file`.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    reader = _Reader(file, environ, options, names)
    specs: list[JobSpec] = []
    jobs = 0
    try:
        words = decode(text, file)
        for root in documents(words, file, reader.problems):
            if root.kind == "scalar" and root.scalar is None:
                continue  # an empty document, as a `---` at the end of a file makes
            jobs += 1
            reader.check_limits(root, jobs)
            spec = reader.resolve(root)
            if spec is not None:
                specs.append(spec.with_source(reader.submitted(words, root)))
    except YamlError as error:
        reader.problems.append(error.problem)
    if not jobs and not reader.problems:
        reader.problems.append(Problem(file, 1, 1, "", "the file is empty", "a job needs at least `run: COMMAND`"))
    reader.finish()
    return specs


def read_script(
    text: str | bytes,
    *,
    file: str,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
    names: Mapping[str, str] | None = None,
) -> JobSpec:
    """The job of a script: `#GPUSCHED key: value` lines before its first command; `run` is the whole script.

    A key may be a path: `#GPUSCHED resources.accelerators: H100:8`. A value is one line of YAML. A line after the first
    command is a problem rather than ignored, and so is a secret's value. The rest is as in `read_job_file`.

    Raises:
        SpecError: with every problem, in the order of the file.
    """
    reader = _Reader(file, environ, options, names)
    spec: JobSpec | None = None
    try:
        script = decode(text, file)
        if script.strip():
            root = directives(script, file, reader.problems)
            spec = reader.resolve(root)
            spec = spec and spec.with_source(reader.submitted(script, root))
        else:
            reader.problems.append(Problem(file, 1, 1, "", "the file is empty", "a script needs at least one command"))
    except YamlError as error:
        reader.problems.append(error.problem)
    reader.finish()
    assert spec is not None, "a document without problems is a job"
    return spec


def spec_from_options(
    options: Mapping[str, object],
    *,
    names: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> JobSpec:
    """The job of `submit -- COMMAND` and its options, without a file.

    Args:
        options: key path -> value, such as `{"run": ["python", "train.py"], "resources.accelerators": "H100:8"}`; None
            values do not count. A `run` of several words is quoted for the shell; text is read as a file would read it;
            accelerators and retry causes may be several, with commas.
        names: key path -> the option as typed, for messages; without one, `--num-nodes` stands for `num_nodes`.
        environ: where secrets given by name are looked up; None = this process's environment.

    Raises:
        SpecError: with every problem; each names its option.
    """
    return _from_data({}, "command line", environ, options, names)


def spec_from_document(document: object, *, source: str = "job", environ: Mapping[str, str] | None = None) -> JobSpec:
    """The job of plain data, as parsed from JSON or written in Python. `source` stands in messages for a file's name.

    Raises:
        SpecError: with every problem; each names its key path.
    """
    if not isinstance(document, Mapping):
        raise SpecError([Problem(source, 0, 0, "", "a job must be a mapping of keys to values")])
    return _from_data({str(key): value for key, value in document.items()}, source, environ, None, None)


def _from_data(
    document: dict[str, object],
    file: str,
    environ: Mapping[str, str] | None,
    options: Mapping[str, object] | None,
    names: Mapping[str, str] | None,
) -> JobSpec:
    reader = _Reader(file, environ, options, names)
    spec = reader.validate(document, Origin(file))
    reader.finish()
    assert spec is not None, "a document without problems is a job"
    shown = {**document, "secrets": dict.fromkeys(spec.secrets, MASK)} if spec.secrets else document
    return spec.with_source(to_yaml(to_jsonable_python(shown)))


@dataclass(slots=True)
class _Reader:
    """What is the same for every document of one reading, and the problems found so far."""

    file: str
    environ: Mapping[str, str]
    options: Mapping[str, object]
    names: Mapping[str, str]
    problems: list[Problem]

    def __init__(
        self,
        file: str,
        environ: Mapping[str, str] | None,
        options: Mapping[str, object] | None,
        names: Mapping[str, str] | None,
    ) -> None:
        self.file = file
        self.environ = os.environ if environ is None else environ
        self.options = {key: value for key, value in (options or {}).items() if value is not None}
        self.names = names or {}
        self.problems = []

    def check_limits(self, root: Node, jobs: int) -> None:
        """Raise YamlError where going on would only cost time."""
        if jobs > MAX_JOBS:
            raise stop(self.file, root.line, root.column, f"more than {MAX_JOBS:,} jobs", "use several files")
        if len(self.problems) >= MAX_PROBLEMS:
            raise too_many(self.file, root.line, root.column)

    def finish(self) -> None:
        """Raise SpecError if there is any problem."""
        if self.problems:
            raise SpecError(sorted(self.problems, key=lambda problem: (problem.line, problem.column)))

    def resolve(self, root: Node) -> JobSpec | None:
        """The job of one document, or None and its problems."""
        value = root.value(as_text=_TEXT_KEYS)
        if isinstance(value, dict):
            return self.validate(value, Origin(self.file, root))
        what = "a list" if root.kind == "list" else "text"
        message = f"a job is a mapping of keys to values, not {what}"
        self.problems.append(Problem(self.file, root.line, root.column, "", message, "write `run: COMMAND`"))
        return None

    def validate(self, document: dict[str, object], origin: Origin) -> JobSpec | None:
        """The job of plain data with the options applied to it, or None and its problems."""
        for name, value in self.options.items():
            path = tuple(name.split(".", 1))
            flag = self.names.get(name, "--" + path[-1].replace("_", "-"))
            inner: list[Path] = [(*path, str(key)) for key in value] if isinstance(value, Mapping) else [path]
            origin.flags.update(dict.fromkeys(inner, flag))
            _put(document, path, _option_value(path[0], value))
        if document.get("name") is None:
            document["name"] = _default_name(document, origin)
        try:
            return JobSpec.model_validate(document, context={"environ": self.environ})
        except ValidationError as error:
            self.problems += islice(problems_of(error, origin), MAX_PROBLEMS)
            return None

    def submitted(self, text: str, root: Node) -> str:
        """One document of `text` as it was submitted: the values of secrets masked, the options noted below it."""
        _, secrets = root.pairs.get("secrets", (root, Node("map", 0, 0)))
        values = [value for _, value in secrets.pairs.values() if value.kind != "scalar" or value.scalar is not None]
        parts: list[str] = []
        begin = root.start
        for first, last in sorted({(value.start, value.end) for value in values}):
            # A block of lines ends with its line break, which stays.
            parts += [text[begin:first], f'"{MASK}"', "\n" if text[first:last].endswith("\n") else ""]
            begin = last
        parts.append(text[begin : root.end])
        shown = [(key, value) for key, value in self.options.items() if key.partition(".")[0] != "secrets"]
        notes = [f"# {self.names.get(key, key)}: {' '.join(str(value).splitlines())}\n" for key, value in shown]
        source = "".join(parts)
        return source if not notes else "".join([source, "" if source.endswith("\n") else "\n", *notes])


def _option_value(key: str, value: object) -> object:
    if key == "run" and isinstance(value, Sequence) and not isinstance(value, str):
        return shlex.join(map(str, value))
    if not isinstance(value, str) or key in _OPTION_TEXT:
        return value
    return [part.strip() for part in value.split(",")] if "," in value else resolve(value)


def _put(document: dict[str, object], path: Path, value: object) -> None:
    """Set `path` in `document`; a mapping is merged into the one that is there."""
    for alias, name in ALIASES.items():
        if path[0] == name:
            document.pop(alias, None)
    *parents, last = map(str, path)
    for step in parents:
        inner = document.get(step)
        if inner is not None and not isinstance(inner, dict):
            return  # The file has no mapping there, which is reported as such.
        document[step] = document = dict(inner or {})
    held = document.get(last)
    if not isinstance(value, Mapping) or held is None:
        document[last] = value
    elif isinstance(held, dict):
        document[last] = {**held, **value}


def _default_name(document: Mapping[str, object], origin: Origin) -> str:
    """The file's name without its suffix, or the command's first word."""
    if origin.root is not None:
        return clean_name(FilePath(origin.file).stem)
    words = str(document.get("run") or "").split()
    return clean_name(FilePath(words[0]).stem) if words else "job"
