"""The options that describe a job, and the jobs that files, scripts, commands and options make together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...jobs.errors import GpuschedError, Problem, SpecError
from .refs import QUEUE
from .session import Session
from .verb import pairs

if TYPE_CHECKING:
    from ...jobs.spec import JobSpec

F = TypeVar("F", bound=Callable[..., Any])

COMMAND = "gpusched.command"
"""Where the words after `--` are kept in click's context."""

KEYS = {
    "name": "name",
    "queue": "queue",
    "priority": "priority",
    "num_nodes": "num_nodes",
    "gpus": "resources.accelerators",
    "cpus": "resources.cpus",
    "memory": "resources.memory",
    "node_labels": "labels",
    "workdir": "workdir",
    "setup": "setup",
    "env": "env",
    "secrets": "secrets",
    "max_duration": "max_duration",
    "array": "array",
    "estimated_duration": "estimated_duration",
    "checkpoint_dir": "checkpoint.dir",
    "grace": "checkpoint.grace",
    "retries": "retry.limit",
    "retry_on": "retry.on",
    "preemptible": "preemptible",
    "kind": "kind",
    "user": "user",
    "annotations": "annotations",
}
"""Parameter -> the key of a job file that it stands for."""


class JobCommand(click.Command):
    """A verb that takes `FILE...`, or a command after `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what follows the first `--` apart: it is the job's, options and all."""
        if "--" in args:
            at = args.index("--")
            args, ctx.meta[COMMAND] = args[:at], args[at + 1 :]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """For the usage line."""
        return ["[OPTIONS]", "FILE... | -- COMMAND..."]


def _environment(_ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    import os  # noqa: PLC0415 - only here

    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not name or (not equals and name not in os.environ):
            why = f"{name} is not set in your environment" if name else f"{text!r} is not NAME=VALUE"
            raise click.BadParameter(why, param=parameter)
        found[name] = value if equals else os.environ[name]
    return found


_OPTIONS = (
    click.option(
        "-f", "--file", "more_files", multiple=True, metavar="FILE", help="A job file or script; - is standard input."
    ),
    click.option("-n", "-J", "--name", "--job-name", "name", metavar="NAME", help="Name of the job."),
    click.option("-p", "--queue", "--partition", "queue", type=QUEUE, metavar="QUEUE", help="Queue to wait in."),
    click.option("--priority", metavar="0-100", help="Higher goes first; 50 if left out."),
    click.option(
        "-N", "--nodes", "--num-nodes", "num_nodes", metavar="N", help="Pieces of the job, started all or none."
    ),
    click.option(
        "--gpus",
        "--gpus-per-node",
        "gpus",
        metavar="[TYPE:]N",
        help="GPUs of each node: 8, H100:8, 0.5; A:8,B:8 = either.",
    ),
    click.option("--cpus", "--cpus-per-node", "cpus", metavar="N", help="CPUs of each node."),
    click.option("--memory", "--mem", "memory", metavar="SIZE", help="Memory of each node, such as 64GB."),
    click.option(
        "--label",
        "node_labels",
        multiple=True,
        callback=pairs,
        metavar="KEY=VALUE",
        help="A label that a node must carry.",
    ),
    click.option("-D", "--workdir", "--chdir", "workdir", metavar="FOLDER", help="Code to copy now and run in."),
    click.option("--no-workdir", is_flag=True, help="Copy no folder, though the command names a file of this one."),
    click.option("--setup", metavar="COMMAND", help="Run before the job, on each node."),
    click.option(
        "-e",
        "--env",
        "env",
        multiple=True,
        callback=_environment,
        metavar="NAME[=VALUE]",
        help="A variable; without a value, that of your environment.",
    ),
    click.option(
        "--secret", "secrets", multiple=True, metavar="NAME", help="A variable of your environment that is never shown."
    ),
    click.option(
        "-a",
        "--array",
        "array",
        metavar="INDICES",
        help="Many tasks: 0-99, 0-99%8 (8 at once), 1,4,7. Each finds its own in GPUSCHED_ARRAY_INDEX.",
    ),
    click.option(
        "-t",
        "--time",
        "--time-limit",
        "--max-duration",
        "max_duration",
        metavar="TIME",
        help="Stop it after this: 90s, 2h, D-HH:MM:SS.",
    ),
    click.option(
        "--estimate", "--estimated-duration", "estimated_duration", metavar="TIME", help="How long it will likely run."
    ),
    click.option("--checkpoint-dir", "checkpoint_dir", metavar="FOLDER", help="Where it keeps its checkpoints."),
    click.option("--grace", metavar="TIME", help="From SIGTERM to SIGKILL; 60s if left out."),
    click.option("--retries", metavar="N", help="Further attempts after one that went wrong."),
    click.option("--retry-on", metavar="CAUSES", help="failure, lost, exit:N; with commas between."),
    click.option(
        "--preemptible/--not-preemptible", default=None, help="Whether it may make room for a more urgent job."
    ),
    click.option("--kind", metavar="KIND", help="train, inference, service or command: chooses defaults."),
    click.option("--user", metavar="NAME", help="Whose job it is; for others: role operator."),
    click.option(
        "--annotation",
        "annotations",
        multiple=True,
        callback=pairs,
        metavar="KEY=VALUE",
        help="A note; changes nothing.",
    ),
)


def job_options(function: F) -> F:
    """FILE... or -- COMMAND..., and the options of a job; handed over as one mapping `job`."""
    from functools import wraps  # noqa: PLC0415 - the standard library's, and small

    @wraps(function)
    def gathered(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the verb takes and gives
        job = {name: options.pop(name) for name in ("files", "more_files", "no_workdir", *KEYS)}
        return function(*args, job=job, **options)

    command: Callable[..., Any] = gathered
    for option in reversed(_OPTIONS):
        command = option(command)
    return click.argument("files", nargs=-1, metavar="FILE...")(command)  # type: ignore[return-value]  # as decorators are


def read(ctx: click.Context, session: Session, job: dict[str, Any]) -> list[JobSpec]:
    """The jobs that a command line describes, all or none.

    Raises:
        SpecError: with every problem of every file.
        UsageError: neither a file nor a command is given, or both.
    """
    words: list[str] | None = ctx.meta.get(COMMAND)
    files = [*job["more_files"], *job["files"]]
    if words is not None and files:
        raise click.UsageError("give a file or a command, not both", ctx)
    if words is None and not files:
        raise click.UsageError(f"give a job file, or a command: `{ctx.command_path} -- python train.py`", ctx)
    if words is not None and not words:
        raise click.UsageError("there is no command after `--`", ctx)
    options = {key: job[name] for name, key in KEYS.items() if job[name] not in (None, (), {})}
    if options.get("secrets"):
        options["secrets"] = list(options["secrets"])
    specs = _of_files(files, options) if words is None else [_of_command(words, options, copy=not job["no_workdir"])]
    return [_completed(spec, session) for spec in specs]


def _of_command(words: list[str], options: dict[str, object], *, copy: bool) -> JobSpec:
    from ...jobs.spec import spec_from_options  # noqa: PLC0415 - loads pydantic

    # One word is a line for the shell, as ssh takes it; several are a program and its arguments.
    options["run"] = words[0] if len(words) == 1 else words
    named = _file_among(words) if copy and "workdir" not in options else None
    if named is not None:
        options["workdir"] = "."
        click.echo(f"{Path.cwd()} is copied as the job's workdir, because of {named}; --no-workdir leaves it", err=True)
    return spec_from_options(options, names=_flags())


def _file_among(words: list[str]) -> str | None:
    """The first word that is a file of the current folder: then the command will want that folder."""
    for word in words:
        path = Path(word)
        try:
            if not path.is_absolute() and ".." not in path.parts and path.is_file():
                return word
        except (OSError, ValueError):
            continue  # too long for a path, say: no file
    return None


def _of_files(files: list[str], options: dict[str, object]) -> list[JobSpec]:
    from ...jobs.spec import read_job_file  # noqa: PLC0415 - loads pydantic

    specs: list[JobSpec] = []
    problems: list[Problem] = []
    for file in files:
        try:
            _check_kind(file)
            specs += _of_stdin(options) if file == "-" else read_job_file(file, options=options, names=_flags())
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems, hint="nothing was queued")
    return specs


def _check_kind(file: str) -> None:
    """Refuse what is a command rather than a file of jobs, with the line that was likely meant."""
    path = Path(file)
    if path.suffix == ".py":
        meant = f"to run it: `gpusched run -- python {file}`"
        raise SpecError([Problem(file, 0, 0, "", "is a Python program, not a job file", meant)])
    if "/" not in file and not path.suffix and not path.exists() and file != "-":
        import shutil  # noqa: PLC0415 - for mistakes alone

        if shutil.which(file):
            raise SpecError(
                [Problem(file, 0, 0, "", "no such file", f"a command goes behind `--`: gpusched run -- {file} ...")]
            )


def _of_stdin(options: dict[str, object]) -> list[JobSpec]:
    from ...jobs.spec import read_jobs, read_script  # noqa: PLC0415 - loads pydantic
    from ...jobs.spec.scripts import is_script  # noqa: PLC0415 - likewise
    from ...jobs.yaml_faults import MAX_BYTES  # noqa: PLC0415 - likewise

    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if is_script("", data):
        return [read_script(data, file="-", options=options, names=_flags())]
    return read_jobs(data, file="-", options=options, names=_flags())


def _flags() -> dict[str, str]:
    """Key -> the option for it, for messages."""
    flags = {}
    for parameter in click.get_current_context().command.params:
        if parameter.name in KEYS:
            flags[KEYS[parameter.name]] = next(text for text in parameter.opts if text.startswith("--"))
    return flags


def _completed(spec: JobSpec, session: Session) -> JobSpec:
    """With the submitter and the configured queue, where the job names none."""
    change: dict[str, object] = {}
    if spec.user is None and not session.known_by_token:
        change["user"] = session.user
    if "queue" not in spec.model_fields_set:
        change["queue"] = session.config["queue"]
    if not change:
        return spec
    changed = spec.model_copy(update=change)
    try:
        type(spec).model_validate({"run": "true", **change})
    except ValueError as error:
        raise GpuschedError(
            f"{' and '.join(change)} of the configuration cannot be {', '.join(map(repr, change.values()))}: {error}",
            hint="see `gpusched config view --show-origin`",
        ) from error
    return changed
