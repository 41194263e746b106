"""What a command line run has: its configuration, its client, and how it prints."""

from __future__ import annotations

import os
import shutil
import sys
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from ..client import Client
    from ..config import Config
    from ..daemon import Start
    from ..output import Listing, Style
    from .narrator import Narrator


class Session:
    """One run of the command line. What it does not need is not loaded.

    Attributes:
        flags: settings given as options, by key of `config.KEYS`.
        no_colour: --no-color was given. verbose: -v was.
    """

    def __init__(self) -> None:
        self.flags: dict[str, str] = {}
        self.no_colour = False
        self.verbose = False
        self._warned = False

    @cached_property
    def config(self) -> Config:
        """The settings of flags, environment and files."""
        from ..config import load  # noqa: PLC0415 - see the class

        return load(self.flags)

    @cached_property
    def user(self) -> str:
        """Who asks: as configured, else as whom a token elsewhere is known, else the login name."""
        if self.config["user"]:
            return self.config["user"]
        if self.known_by_token:
            return str(self.client().whoami()["user"])
        import getpass  # noqa: PLC0415 - see the class

        try:
            return getpass.getuser()
        except (KeyError, OSError):
            return f"uid-{os.getuid()}"  # a container's user without a name

    @cached_property
    def known_by_token(self) -> bool:
        """Whether the control plane elsewhere knows by our token who we are: it need not be told."""
        from ..access.tokens import PREFIX  # noqa: PLC0415 - see the class

        return bool(self.config["address"]) and self.client().token.startswith(PREFIX)

    def client(self) -> Client:
        """A client of the control plane, which is not started if it does not run."""
        from ..client import connect  # noqa: PLC0415 - see the class

        self.warn_of_open_files()
        client = connect(self.config)
        client.narrate(_say)
        return client

    def warn_of_open_files(self) -> None:
        """Say once which files hold a token and are not for their owner's eyes only."""
        if self._warned:
            return
        self._warned = True
        from ..config import user_file  # noqa: PLC0415 - see the class
        from ..credentials import credentials_file, too_open  # noqa: PLC0415 - likewise

        files = [credentials_file()]
        if self.config.find("token")[1] == "user":
            files.append(user_file(os.environ))
        for words in filter(None, (too_open(file) for file in files if file is not None)):
            click.echo(f"warning: {words}", err=True)

    def started(self, narrator: Narrator) -> Client:
        """A client of the configured control plane, else of this machine's, which is started if it does not run.

        Raises:
            GpuschedError: it does not start.
        """
        if self.config["address"]:
            return self.client()
        from ..client import local_client, paths_of  # noqa: PLC0415 - see the class
        from ..daemon import ensure_running  # noqa: PLC0415 - likewise

        paths = paths_of(self.config)
        ensure_running(paths, start=self.how_to_start(), say=narrator.say)
        client = local_client(paths)
        client.narrate(_say)
        return client

    def how_to_start(self) -> Start:
        """How a control plane of this machine is started, as configured."""
        from ..config import YES  # noqa: PLC0415 - see the class
        from ..daemon import Start  # noqa: PLC0415 - likewise

        config = self.config
        return Start(
            policy=config["policy"],
            ray_address=config["ray_address"],
            gpus=int(config["gpus"]) if config["gpus"] else None,
            host=config["host"],
            port=int(config["port"] or 0),
            database=config["database_url"],
            tls_cert=config["tls_cert"],
            tls_key=config["tls_key"],
            insecure=config["insecure"].lower() in YES,
            health=config["health"],
        )

    def narrator(self, *, silent: bool = False) -> Narrator:
        """Who says on standard error what is being waited for."""
        from .narrator import Narrator  # noqa: PLC0415 - see the class

        width = shutil.get_terminal_size().columns if sys.stderr.isatty() and _capable() else None
        return Narrator(width=width, silent=silent)

    def colour_on(self, stream: TextIO) -> bool:
        """Whether colours may go to a stream."""
        return stream.isatty() and not self.no_colour and not os.environ.get("NO_COLOR") and _capable()

    def show(self, listing: Listing, style: Style) -> None:
        """Print a listing; a word on standard error where a table would be empty."""
        from ..output import render  # noqa: PLC0415 - see the class

        text = render(listing, style)
        if not listing.rows and listing.empty and style.form in {"table", "wide"}:
            click.echo(listing.empty, err=True)
        sys.stdout.write(text)

    def width(self) -> int | None:
        """Characters of a line of the terminal; None = standard output is none."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _say(words: str) -> None:
    click.echo(words, err=True)


def _capable() -> bool:
    return os.environ.get("TERM") != "dumb"


def common_options() -> list[click.Parameter]:
    """--address, --no-color and -v, which go before or after the verb."""

    def keep_address(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.ensure_object(Session).flags["address"] = value

    def keep_colour(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
        if value:
            ctx.ensure_object(Session).no_colour = True

    def keep_verbose(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
        if value:
            ctx.ensure_object(Session).verbose = True

    return [
        click.Option(
            ["--address"],
            metavar="URL",
            expose_value=False,
            callback=keep_address,
            help="The control plane; left out: as configured, else the one of this machine.",
        ),
        click.Option(["--no-color"], is_flag=True, expose_value=False, callback=keep_colour, help="Use no colours."),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=keep_verbose,
            help="Say where a fault of gpusched itself is.",
        ),
    ]


pass_session = click.make_pass_decorator(Session, ensure=True)
