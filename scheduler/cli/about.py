"""`gpusched version`, `schema` and `completion`."""

from __future__ import annotations

import platform
import sys

import click

from .verb import verb

SHELLS = {
    "bash": 'eval "$(gpusched completion bash)"       # in ~/.bashrc',
    "zsh": 'eval "$(gpusched completion zsh)"        # in ~/.zshrc, after compinit',
    "fish": "gpusched completion fish | source        # in ~/.config/fish/config.fish",
}


@verb("version")
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    metavar="FORM",
    help="table or json.",
)
def version(*, form: str) -> None:
    """Print the version.

    And those of Python and of Ray, which is not loaded for it.
    """
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415 - the help does not need it
    from importlib.metadata import version as installed  # noqa: PLC0415 - likewise

    from ... import __version__  # noqa: PLC0415 - likewise

    try:
        ray = installed("ray")
    except PackageNotFoundError:
        ray = ""
    if form == "json":
        from ..output import SCHEMA_VERSION, to_json  # noqa: PLC0415 - for this form alone

        found = {"version": __version__, "python": platform.python_version(), "ray": ray or None}
        sys.stdout.write(to_json({"schema_version": SCHEMA_VERSION, **found}))
    else:
        click.echo(f"gpusched {__version__} (Python {platform.python_version()}, Ray {ray or 'not installed'})")


@verb("schema", examples="\ngpusched schema > job.schema.json\n")
def schema() -> None:
    """Print the JSON schema of job files, for editors.

    With `# yaml-language-server: $schema=job.schema.json` in a job file's first line most editors complete its keys.
    """
    from ...jobs.spec.schema import text  # noqa: PLC0415 - loads pydantic

    sys.stdout.write(text())


@verb("completion", examples="\n".join(SHELLS.values()))
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script of a shell.

    It completes verbs and options, and ids, names, queues and nodes as they are at that moment.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - the help does not need it

    from .root import COMPLETE_VARIABLE, PROGRAM  # noqa: PLC0415 - root imports the verbs by name

    kind = get_completion_class(shell)
    assert kind is not None, "click has all of SHELLS"
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, COMPLETE_VARIABLE).source())
