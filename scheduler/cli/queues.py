"""`gpusched queues`: the queue file, applied, compared and shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..output import NOTHING, SCHEMA_VERSION, Column, Listing, Style, clock, number, safe, to_json, to_lines, to_yaml
from .refs import QUEUE
from .session import Session, pass_session
from .verb import SETTINGS, form_option, output_options, verb

JSON = dict[str, Any]

APPLY = """
gpusched queues apply queues.yaml
gpusched queues apply queues.yaml --dry-run
cat queues.yaml | gpusched queues apply -
"""
DIFF = """
gpusched queues diff queues.yaml               # 0: nothing would change, 1: something would
gpusched queues diff old.yaml new.yaml         # two files, without a control plane
"""
EXPORT = """
gpusched queues export > queues.yaml
gpusched queues export --version 3 --as-written
"""


@click.group("queues", context_settings=SETTINGS)
def queues() -> None:
    """Configure the queues: quotas, borrowing, weights and limits.

    They are one YAML file. Each one applied is kept as a version. Without any, a job may name any queue and no queue
    has a limit.
    """


def _source(path: str) -> tuple[str, str]:
    """(text, name) of a file; `-` is standard input."""
    from ...jobs.errors import SpecError  # noqa: PLC0415 - the help does not need it
    from ...jobs.yaml_faults import MAX_BYTES, YamlError, decode  # noqa: PLC0415 - likewise
    from ..queues.reading import read_text  # noqa: PLC0415 - likewise

    if path == "-":
        name, data = "<stdin>", sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        name, data = path, read_text(path)
    try:
        return decode(data, name), name
    except YamlError as error:
        raise SpecError([error.problem]) from None


@verb("apply", examples=APPLY)
@click.argument("file", metavar="FILE")
@click.option(
    "--drain", is_flag=True, help="Also if jobs lose their queue: what runs goes on, what waits waits for it."
)
@click.option("--strict", is_flag=True, help="Refuse quotas that add up to more than the cluster has.")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@form_option
@pass_session
def apply(session: Session, file: str, *, drain: bool, strict: bool, dry_run: bool, style: Style) -> None:
    """Have the queues of a file hold from now on.

    All of it or, with a message for every problem, nothing. A queue that still has jobs is not taken away unless you
    say --drain. Quotas beyond the cluster are a warning, since nodes come and go.
    """
    text, name = _source(file)
    found = session.client().apply_queues(
        text, file=name, user=session.user, drain=drain, strict=strict, dry_run=dry_run
    )
    _say(found, style, dry_run=dry_run)


@verb("diff", examples=DIFF)
@click.argument("file", metavar="FILE")
@click.argument("other", metavar="[OTHER]", required=False)
@form_option
@click.pass_context
def diff(ctx: click.Context, file: str, other: str | None, *, style: Style) -> None:
    """Show what a file would change; exit with 1 if anything.

    Against the queues that hold, or against OTHER, another file, that would follow on FILE.
    """
    session = ctx.ensure_object(Session)
    if other is None:
        text, name = _source(file)
        found = session.client().apply_queues(text, file=name, user=session.user, dry_run=True)
    else:
        found = _between(file, other)
    if style.form in {"json", "yaml", "jsonl"}:
        _machine(found, style)
    else:
        for change in found["changes"]:
            click.echo(safe(change["text"]))
        for line in (*found["warnings"], *_lost(found)):
            click.echo(safe(f"warning: {line}"), err=True)
    ctx.exit(1 if found["changes"] else 0)


def _between(file: str, other: str) -> JSON:
    from ..queues import parse_queues  # noqa: PLC0415 - the help does not need it
    from ..queues.compare import changes  # noqa: PLC0415 - likewise

    old, new = (parse_queues(text, file=name) for text, name in (_source(file), _source(other)))
    found = [{**change._asdict(), "text": str(change)} for change in changes(old, new)]
    return {"changes": found, "warnings": [], "displaced": {}}


@verb(
    "rollback",
    examples="\ngpusched queues rollback 3\ngpusched queues rollback 0       # no queues: any name will do\n",
)
@click.argument("version", type=click.IntRange(0), metavar="VERSION")
@click.option(
    "--drain", is_flag=True, help="Also if jobs lose their queue: what runs goes on, what waits waits for it."
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@form_option
@pass_session
def rollback(session: Session, version: int, *, drain: bool, dry_run: bool, style: Style) -> None:
    """Have an earlier version hold again.

    It becomes a new version, so that nothing of the history is lost. `gpusched queues history` lists them.
    """
    found = session.client().roll_back_queues(version, user=session.user, drain=drain, dry_run=dry_run)
    _say(found, style, dry_run=dry_run)


@verb("export", examples=EXPORT)
@click.option("--version", "version", type=click.IntRange(1), metavar="N", help="Another version than the present one.")
@click.option("--as-written", is_flag=True, help="With comments, as it was applied.")
@pass_session
def export(session: Session, *, version: int | None, as_written: bool) -> None:
    """Print the file that applies to the same queues."""
    found = session.client().queue_file(version)
    sys.stdout.write(found["text"] if as_written else found["yaml"])


def _amounts(key: str) -> Any:  # noqa: ANN401 - a function of a row
    def text(row: JSON) -> str:
        given = {flavour: amount for flavour, amount in row[key].items() if amount is not None}
        if list(given) == ["gpus"]:
            return number(given["gpus"])
        return " ".join(f"{flavour}:{number(amount)}" for flavour, amount in given.items())

    return text


def _columns() -> tuple[Column, ...]:
    return (
        Column("name", lambda row: row["name"], lambda row: f"{'  ' * row['depth']}{row['name']}", heading="QUEUE"),
        Column("weight", lambda row: row["weight"], right=True),
        Column("nominal", lambda row: row["nominal"], _amounts("nominal"), right=True),
        Column("used", lambda row: row["used"], lambda row: number(row["used"]["gpus"]), right=True),
        Column("borrowed", lambda row: row["borrowed"], _amounts("borrowed"), right=True),
        Column("running", lambda row: row["running"], right=True),
        Column("waiting", lambda row: row["waiting"], right=True),
        Column("state", _state, colour=lambda state: "yellow" if state == "paused" else ""),
        Column("parent", lambda row: row["parent"], wide=True),
        Column("submit", _submitters, wide=True),
        Column(
            "borrowing_limit",
            lambda row: row["borrowing_limit"],
            _amounts("borrowing_limit"),
            right=True,
            wide=True,
            heading="BORROWING",
        ),
        Column(
            "lending_limit",
            lambda row: row["lending_limit"],
            _amounts("lending_limit"),
            right=True,
            wide=True,
            heading="LENDING",
        ),
    )


def _submitters(row: JSON) -> str:
    """Who may submit; a control plane of an earlier release says nothing of it."""
    found = row.get("submit")
    return "everybody" if found is None else ", ".join(found) or "admins"


def _state(row: JSON) -> str:
    return "paused" if row["paused"] else "default" if row["default"] else "" if row["takes_jobs"] else "parent"


@verb("list", examples="\ngpusched queues list\ngpusched queues list -o wide\n")
@output_options
@pass_session
def list_(session: Session, *, style: Style) -> None:
    """List the queues: what they may have, and what they hold.

    Each below its parent, whose figures include those of the queues below it.
    """
    found = session.client().queues()
    extra = {key: value for key, value in found.items() if key != "queues"}
    empty = "no queues are configured, and no unfinished job names one"
    session.show(Listing("queues", _columns(), found["queues"], extra=extra, empty=empty), style)
    if style.form in {"table", "wide"}:
        if not found["configured"] and found["queues"]:
            click.echo("no queues are configured: these are those that unfinished jobs name", err=True)
        for name, jobs in found.get("lost", {}).items():
            many = jobs["waiting"] + jobs["running"]
            click.echo(safe(f"queue {name} is gone; {many} job{'s' * (many != 1)} of it are left"), err=True)


@verb("show", examples="\ngpusched queues show research\n")
@click.argument("name", metavar="QUEUE", type=QUEUE)
@form_option
@pass_session
def show(session: Session, name: str, *, style: Style) -> None:
    """Show a queue: its settings, what it holds and what it borrows."""
    row = session.client().queue(name)
    if style.form in {"json", "yaml", "jsonl"}:
        _machine(row, style)
        return
    facts = {
        "Queue": row["name"],
        "Parent": row["parent"],
        "State": _state(row),
        "Nominal": _amounts("nominal")(row),
        "Used": " ".join(f"{flavour}:{number(amount)}" for flavour, amount in row["used"].items()),
        "Borrowed": _amounts("borrowed")(row),
        "Submit": _submitters(row),
        "Jobs": f"{row['running']} on GPUs, {row['waiting']} waiting",
    }
    for label, value in facts.items():
        click.echo(f"{label + ':':<12}{safe(str(value)) or NOTHING}")
    click.echo("Settings:")
    for line in to_yaml(row["settings"]).splitlines():
        click.echo(safe(f"  {line}"))


@verb("history", examples="\ngpusched queues history\n")
@output_options
@pass_session
def history(session: Session, *, style: Style) -> None:
    """List the versions, the newest first."""
    columns = (
        Column("version", lambda row: row["version"], right=True),
        Column("time", lambda row: row["time"], lambda row: clock(row["time"])),
        Column("user", lambda row: row["user"]),
        Column("file", lambda row: row["file"], lambda row: Path(row["file"]).name, flexible=True),
        Column("note", lambda row: row["note"]),
    )
    empty = "no queues were ever configured"
    session.show(Listing("versions", columns, session.client().queue_history(), name="version", empty=empty), style)


def _machine(found: JSON, style: Style) -> None:
    if style.form == "jsonl":
        sys.stdout.write(to_lines([found]))
        return
    document = {"schema_version": SCHEMA_VERSION, **found}
    sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))


def _say(found: JSON, style: Style, *, dry_run: bool) -> None:
    """What came of a change."""
    if style.form in {"json", "yaml", "jsonl"}:
        _machine(found, style)
        return
    for change in found["changes"]:
        click.echo(safe(change["text"]))
    for line in (*found["warnings"], *_lost(found)):
        click.echo(safe(f"warning: {line}"), err=True)
    now = f"version {found['version']}" if found["version"] else "no version yet"
    if dry_run:
        click.echo(f"nothing was changed: {now} holds" if found["changes"] else f"nothing would change: {now} holds")
    elif found["written"]:
        click.echo(f"queues are at version {found['version']}")
    else:
        click.echo(f"nothing to change: queues are at version {found['version']}")


def _lost(found: JSON) -> list[str]:
    return [
        f"jobs that lose their queue {name}: {jobs['waiting']} waiting, {jobs['running']} on GPUs"
        for name, jobs in found["displaced"].items()
    ]


for _command in (apply, diff, export, list_, show, history, rollback):
    queues.add_command(_command)
