"""`gpusched login`, `logout` and `whoami`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...jobs.errors import GpuschedError
from ..output import SCHEMA_VERSION, Style, relative, safe, to_json, to_lines, to_yaml
from .session import Session, pass_session
from .verb import form_option, verb

if TYPE_CHECKING:
    from ..credentials import Credential

LOGIN = """
gpusched login https://gpu.example.org:6810               # asks for the token
gpusched login https://gpu.example.org:6810 --ca lab-ca.pem < token.txt
"""


@verb("login", examples=LOGIN)
@click.argument("url", metavar="[URL]", required=False)
@click.option("--ca", metavar="FILE", default="", help="The authority that signed its certificate: PEM.")
@pass_session
def login(session: Session, url: str | None, *, ca: str) -> None:
    """Keep a token for a control plane, and use that one from now on.

    The token is read from standard input, or asked for without being shown: not from the command line, where others
    could read it. It is tried, and kept in ~/.config/gpusched/credentials.json, for your eyes only. It is sent to
    this URL and no other.
    """
    from ..access.tokens import id_of  # noqa: PLC0415 - the help does not need it
    from ..client import Client  # noqa: PLC0415 - likewise
    from ..credentials import Credential, keep  # noqa: PLC0415 - likewise

    url = _url(url or session.config["address"])
    ca = ca or session.config["ca"]
    ca = str(Path(ca).expanduser().absolute()) if ca else ""
    if sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True).strip()
    else:
        token = sys.stdin.readline().strip()
    if not id_of(token):
        raise GpuschedError(
            "that is no token of gpusched", hint="it looks like gsk_..., an admin's `gpusched token create` makes one"
        )
    if url.startswith("http:") and not _local(url):
        click.echo("warning: this is plain HTTP: who listens in can use the token", err=True)
    known = Client(url, token, ca=ca).whoami()
    path = keep(url, Credential(token, known["user"], ca))
    click.echo(safe(f"you are {known['user']} (role {known['role']}) at {url}; the token is in {path}"))
    _use(session, url)


def _use(session: Session, url: str) -> None:
    """Make it the control plane of this user, unless something says another."""
    from ..config import user_file  # noqa: PLC0415 - the help does not need it

    setting, kind = session.config.find("address")
    if setting.value == url and kind != "flag":
        return
    path = user_file(os.environ)
    if kind not in {"default", "flag"} or path is None:
        note = f"note: {setting.origin} names {setting.value} as your control plane; it goes on counting"
        click.echo(safe(note), err=True)
        return
    try:
        text = path.read_text("utf-8") if path.exists() else ""
        if session.config.layers[-1].settings.get("address") is None and "address:" not in text:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with path.open("a", encoding="utf-8") as file:
                file.write(("" if not text or text.endswith("\n") else "\n") + f"address: {url}\n")
            click.echo(safe(f"{path} names it as your control plane from now on"))
            return
    except (OSError, ValueError) as error:
        raise GpuschedError(f"cannot write {path}: {error}", hint=f"export GPUSCHED_ADDRESS={url}") from None
    click.echo(safe(f"note: {path} names another control plane; this one: --address {url}"), err=True)


@verb("logout", examples="\ngpusched logout\ngpusched logout https://gpu.example.org:6810\n")
@click.argument("url", metavar="[URL]", required=False)
@click.option("--revoke", is_flag=True, help="Have the control plane refuse the token from now on, too.")
@pass_session
def logout(session: Session, url: str | None, *, revoke: bool) -> None:
    """Forget the token that `gpusched login` kept."""
    from ..access.tokens import id_of  # noqa: PLC0415 - the help does not need it
    from ..client import Client  # noqa: PLC0415 - likewise
    from ..credentials import forget, known_as  # noqa: PLC0415 - likewise

    url = _url(url or session.config["address"])
    kept: Credential | None = known_as(url)
    if kept is not None and revoke:
        Client(url, kept.token, ca=kept.ca).revoke_token(id_of(kept.token))
    click.echo(safe(f"the token for {url} is forgotten" if forget(url) else f"no token was kept for {url}"))


@verb("whoami")
@form_option
@pass_session
def whoami(session: Session, *, style: Style) -> None:
    """Say who the control plane takes you for, and what you may do there."""
    client = session.client()
    known = {"url": client.url, **client.whoami()}
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, **known}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
        return
    if style.form == "jsonl":
        sys.stdout.write(to_lines([known]))
        return
    import time  # noqa: PLC0415 - only here

    groups = f", groups {', '.join(known['groups'])}" if known["groups"] else ""
    ends = f", token ends {relative(known['expires'], time.time())}" if known["expires"] else ""
    click.echo(safe(f"{known['user']}, role {known['role']}{groups}{ends}, at {known['url']}"))


def _url(address: str) -> str:
    if not address:
        raise click.UsageError("which control plane? give its URL, such as https://HOST:6810")
    return (address if "://" in address else f"http://{address}").rstrip("/")


def _local(url: str) -> bool:
    from urllib.parse import urlsplit  # noqa: PLC0415 - only here

    return (urlsplit(url).hostname or "") in {"localhost", "127.0.0.1", "::1"}
