"""`gpusched policy`: list, show and use; compare and test have files of their own."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import click

from ..output import SCHEMA_VERSION, Column, Listing, Style, safe, to_json, to_yaml
from .policy_compare import compare
from .policy_test import test
from .session import Session, pass_session
from .verb import SETTINGS, form_option, output_options, verb

JSON = dict[str, Any]


class PolicyRef(click.ParamType[str]):
    """A policy's name; the shell completes those of the catalogue."""

    name = "policy"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:  # noqa: ARG002 - click's
        """Names that begin like this."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - for completion alone

        return [CompletionItem(row["name"], help=row["rule"]) for row in known() if row["name"].startswith(incomplete)]


@click.group("policy", context_settings=SETTINGS)
def policy() -> None:
    """Show, compare, test and choose policies."""


def known() -> list[JSON]:
    """The policies of the catalogue and of entry points."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - the help does not need it

    from ...policies.catalog import CATALOG  # noqa: PLC0415 - likewise

    rows = [{"name": name, "rule": first_sentence(make), "from": "gpusched"} for name, make in CATALOG.items()]
    rows += [
        {
            "name": point.name,
            "rule": point.value,
            "from": point.dist.name if point.dist is not None else "an entry point",
        }
        for point in entry_points(group="gpusched.policies")
        if point.name not in CATALOG
    ]
    return rows


def first_sentence(thing: object) -> str:
    """What a policy's docstring begins with."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


COLUMNS = (
    Column("name", lambda row: row["name"]),
    Column("rule", lambda row: row["rule"], flexible=True),
    Column("from", lambda row: row["from"], wide=True),
)


@verb("list", examples="\ngpusched policy list\n")
@output_options
@pass_session
def list_(session: Session, *, style: Style) -> None:
    """List the policies by name.

    Besides these, `order+placement+blocking` composes one, such as `arrival+best_fit+skip`, and `file.py:Class` or
    `module:Class` names one of your own.
    """
    session.show(Listing("policies", COLUMNS, known()), style)


@verb("show", examples="\ngpusched policy show gang\ngpusched policy show mine.py:Mine\n")
@click.argument("name", metavar="NAME", type=PolicyRef())
@form_option
@pass_session
def show(_session: Session, *, name: str, style: Style) -> None:
    """Show a policy's rule, exactly."""
    from ...policies.catalog import CATALOG, load  # noqa: PLC0415 - the help does not need it

    found = load(name)
    rule = inspect.getdoc(CATALOG[name] if name in CATALOG else type(found)) or "its author gave no description"
    row = {"name": found.name, "version": found.version, "rule": rule}
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, **row}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
    else:
        click.echo(f"{safe(found.name)}, version {safe(str(found.version))}\n")
        click.echo("\n".join(map(safe, rule.splitlines())))


@verb("use", examples="\ngpusched policy use fair\ngpusched policy use mine.py:Mine\n")
@click.argument("name", metavar="NAME", type=PolicyRef())
@pass_session
def use(session: Session, *, name: str) -> None:
    """Have another policy decide from now on.

    It is asked once before it counts; if its plan breaks a rule, it is refused and the present one goes on. The choice
    holds after a restart, unless `gpusched up --policy` says otherwise. `gpusched policy compare` shows beforehand what
    it would have done with your own history.
    """
    from ..daemon import whole_name  # noqa: PLC0415 - the help does not need it

    found = session.client().use_policy(whole_name(name))
    click.echo(f"{found['name']}/{found['version']} decides from now on")


for _command in (list_, show, use, compare, test):
    policy.add_command(_command)
