"""docs/cli.md, made from the commands themselves.

After a change of a verb it is written again by

    python -m gpusched.scheduler.cli.reference > docs/cli.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from .menu import ALIASES, SECTIONS
from .root import PROGRAM, root

WIDTH = 110

HEAD = """# Command line

Made from the commands by `python -m gpusched.scheduler.cli.reference`; a test keeps it so.

**Jobs are named** by id (`12`), ULID or a unique beginning of one, name, `@` (your last job) or `@~N` (the Nth before
it); most verbs take several, or `-l KEY=VALUE` for those with a label.

**Where the control plane is.** With no address configured, `submit`, `run` and `up` start one on this machine; the
other verbs exit with 7 and say how to start it.

**Output.** `-o table|wide|json|jsonl|yaml|csv|name`. json, jsonl, yaml and csv are stable: keys may be added; when one
changes its meaning or goes away, `schema_version` rises (jsonl and csv have no place for it, and follow it). Times are
ISO 8601 UTC, durations seconds, memory bytes. Tables show times as people say them, and make control characters
visible. Colours appear only on a terminal, and not with `--no-color` or `NO_COLOR`. Errors go to standard error, with
`-o json` as `{"error": {"code", "message", "hint"}}`.

**Configuration.** An option wins over `GPUSCHED_*`, that over `.gpusched.yaml` of the project, then
`~/.config/gpusched/config.yaml`, then `/etc/gpusched/config.yaml`. A token of yours is not sent to an address that a
project's file names. Keys:

| key | meaning | default |
|---|---|---|
"""

CODES = """
**Exit codes**

| code | meaning |
|---|---|
| 0 | done; `run`, `wait`, `submit --wait`: the job succeeded; `submit --dry-run`: it would start now |
| 1 | anything else that went wrong; a job that ended badly without a code of its own |
| 2 | the command line is wrong |
| 3 | no such job, node or policy |
| 4 | a job file, trace, cluster file or configuration is wrong |
| 5 | no node of this cluster can hold the job |
| 6 | not allowed |
| 7 | the control plane does not answer |
| 8 | the state that the job is in does not allow it |
| 10 | `submit --dry-run`: valid, and would wait |
| 124 | `wait --timeout` ran out |
| 130 | Ctrl-C; the job goes on |
| else | `run`, `wait`, `submit --wait` and `--follow`: the job's own code, 128+n if signal n ended it |
"""


def pages() -> Iterator[str]:
    """The document in pieces."""
    from ..config import KEYS  # noqa: PLC0415 - only here

    yield HEAD
    for key, about in KEYS.items():
        yield f"| `{key}` | {about.meaning} | {f'`{about.default}`' if about.default else ''} |\n"
    yield CODES
    top = _context(root, PROGRAM, None)
    for section, entries in SECTIONS.items():
        yield f"\n## {section}\n"
        for name in entries:
            command = root.get_command(top, name)
            assert command is not None, f"{name} is in the menu"
            yield from _verb(command, top, name)


def _verb(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    ctx = _context(command, name, parent)
    also = [alias for alias, meant in ALIASES.items() if meant == name and parent.parent is None]
    yield f"\n### {ctx.command_path}\n"
    if also:
        yield f"\nAlso {' and '.join(f'`{PROGRAM} {alias}`' for alias in also)}.\n"
    yield f"\n```text\n{command.get_help(ctx)}\n```\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(ctx):
            found = command.get_command(ctx, inner)
            assert found is not None, f"{inner} is in its group"
            yield from _verb(found, ctx, inner)


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return click.Context(command, parent=parent, info_name=name, **settings)


def text() -> str:
    """The whole document."""
    return "".join(pages())


if __name__ == "__main__":
    sys.stdout.write(text())
