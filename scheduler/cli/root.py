"""`gpusched` itself: the menu of verbs, loaded one at a time, and what is said when something goes wrong."""

from __future__ import annotations

import importlib
import os
import sys

import click

from .failures import explain_failure
from .menu import ALIASES, MENU, SECTIONS
from .session import Session, common_options

PROGRAM = "gpusched"
COMPLETE_VARIABLE = "_GPUSCHED_COMPLETE"


class Menu(click.Group):
    """The verbs by name, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All verbs in the order of the menu."""
        return list(MENU)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """A verb by its name or alias."""
        entry = MENU.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        command: click.Command = getattr(importlib.import_module(f".{entry.module}", __package__), entry.command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb meant, or an error with the likely one."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is not None:
            return command.name, command, args[1:]
        if name.startswith("-"):
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches  # noqa: PLC0415 - for mistakes alone

        close = get_close_matches(name, [*MENU, *ALIASES], n=2, cutoff=0.5)
        hint = f"; did you mean {' or '.join(f'`{word}`' for word in close)}?" if close else ""
        raise click.UsageError(f"there is no command {name!r}{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The menu by sections, without importing a verb."""
        for section, entries in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, entry.line) for name, entry in entries.items()])


@click.group(
    PROGRAM,
    cls=Menu,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="`gpusched VERB --help` says more, with examples. `@` is your last job, `@~1` the one before it.",
)
def root() -> None:
    """A GPU queue for Ray clusters.

    \b
      gpusched run -- python train.py          run a command as a job and follow it
      gpusched submit job.yaml                 queue a job file
      gpusched ps                              what became of it
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


root.params += common_options()


def run(arguments: list[str]) -> int:
    """Run a command line; its exit code. Every error is printed here, once."""
    _make_streams_safe()
    session = Session()
    try:
        if os.environ.get(COMPLETE_VARIABLE):
            root.main(arguments, prog_name=PROGRAM, obj=session)  # answers the shell, and leaves
        # Not by `root.main`: it ends the process on a broken pipe with a code of its own.
        with root.make_context(PROGRAM, arguments, obj=session) as ctx:
            root.invoke(ctx)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - the one place where errors become words and exit codes
        return explain_failure(error, arguments, session)
    return 0


def _make_streams_safe() -> None:
    """A name that the terminal's encoding does not have must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
