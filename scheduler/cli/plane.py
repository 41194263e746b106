"""`gpusched up`, `down` and `status`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from ...jobs.errors import ConflictError
from ..output import SCHEMA_VERSION, Style, number, safe, span, to_json, to_lines, to_yaml
from .session import Session, pass_session
from .submit import NO_RAY
from .verb import form_option, verb

JSON = dict[str, Any]

UP = """
gpusched up                                    # with a local Ray
gpusched up --ray-address 10.0.0.1:6379        # join a cluster that runs
gpusched up --policy binpack
gpusched up --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem    # for others too; see docs/access.md
"""
DOWN = """
gpusched down
gpusched down --keep-ray                       # jobs go on; `gpusched up` finds them again
"""


@verb("up", examples=UP)
@click.option("--ray-address", metavar="HOST:PORT", help="Join this Ray cluster; left out: a local one is started.")
@click.option("--host", metavar="ADDRESS", help="Listen on this address; 127.0.0.1 if left out.")
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="N", help="Listen on this port; 6810 if left out and free."
)
@click.option("--policy", metavar="NAME", help="Who decides; see `gpusched policy list`.")
@click.option(
    "--gpus", type=click.IntRange(0, 10_000), metavar="N", help="GPUs of the local Ray; left out: those there are."
)
@click.option("--tls-cert", metavar="FILE", help="Serve HTTPS with this certificate: PEM, its chain after it.")
@click.option("--tls-key", metavar="FILE", help="The key of that certificate: PEM.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Listen beyond loopback without TLS: tokens travel in clear text."
)
@form_option
@pass_session
def up(
    session: Session,
    *,
    ray_address: str | None,
    host: str | None,
    port: int | None,
    policy: str | None,
    gpus: int | None,
    tls_cert: str | None,
    tls_key: str | None,
    insecure: bool | None,
    style: Style,
) -> None:
    """Start the control plane of this machine, or join a Ray cluster.

    It goes on in the background and keeps its state in $GPUSCHED_HOME. One that runs already is left as it is. Without
    --ray-address a local Ray is started, with the GPUs that the machine has, or with logical ones if it has none.
    """
    from ..client import local_client, paths_of  # noqa: PLC0415 - the help does not need it
    from ..daemon import ensure_running, running  # noqa: PLC0415 - likewise

    paths = paths_of(session.config)
    asked = {"policy": policy, "ray_address": ray_address, "host": host, "port": port, "gpus": gpus}
    asked |= {"tls_cert": tls_cert, "tls_key": tls_key, "insecure": insecure}
    given = {key: value for key, value in asked.items() if value is not None}
    _check_policy(policy or session.config["policy"])
    with session.narrator() as narrator:
        before = running(paths)
        if before is not None and given:
            _refuse_other(local_client(paths).status(), given)
        start = replace(session.how_to_start(), **given)  # type: ignore[arg-type]  # keys and types are those of Start
        ensure_running(paths, start=start, say=narrator.say, ready=start.ray_address != NO_RAY)
    status = local_client(paths).status()
    _print(status, style)


def _check_policy(name: str) -> None:
    if name:
        from ...policies.catalog import load  # noqa: PLC0415 - only if one is named

        load(name)


def _refuse_other(status: JSON, given: dict[str, Any]) -> None:
    """A control plane that runs cannot be given other options."""
    has = {
        "policy": status["policy"].get("wanted") or status["policy"]["name"],
        "ray_address": status["ray"].get("address"),
    }
    other = [f"{key.replace('_', '-')} {has[key] or 'none'}" for key in has if key in given and given[key] != has[key]]
    if other:
        raise ConflictError(
            f"a control plane runs already, with {' and '.join(other)}",
            hint="`gpusched down --keep-ray` stops it alone and jobs go on; then `gpusched up` again",
        )


@verb("down", examples=DOWN)
@click.option("--force", is_flag=True, help="Also if jobs run on the local Ray, which end with it.")
@click.option("--keep-ray", is_flag=True, help="Leave the local Ray and the jobs on it alone.")
@pass_session
def down(session: Session, *, force: bool, keep_ray: bool) -> None:
    """Stop the control plane of this machine and what it started.

    A Ray cluster that it joined, and the jobs there, go on.
    """
    from ..client import paths_of  # noqa: PLC0415 - the help does not need it
    from ..daemon import stop  # noqa: PLC0415 - likewise

    with session.narrator() as narrator:
        stopped = stop(paths_of(session.config), force=force, keep_ray=keep_ray, say=narrator.say)
    for what in stopped:
        click.echo(f"stopped {what}")


@verb("status")
@form_option
@pass_session
def status(session: Session, *, style: Style) -> None:
    """Say how the control plane is.

    Its address, policy, database and Ray cluster, and how many jobs it has in each state.
    """
    client = session.client()
    _print({"url": client.url, **client.status()}, style)


def _print(found: JSON, style: Style) -> None:
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, **found}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
    elif style.form == "jsonl":
        sys.stdout.write(to_lines([found]))
    else:
        for label, value in lines(found):
            if value:
                click.echo(f"{label + ':':<15}{safe(value)}")


def lines(found: JSON) -> Iterator[tuple[str, str]]:
    """A status for people."""
    cluster, ray, policy = found["cluster"], found.get("ray") or {}, found["policy"]
    leader = "" if found.get("leader", True) else f", standing by: {found.get('standby') or 'another one leads'}"
    process = f" (process {found['pid']}, up {span(found['uptime'])}{leader})" if "pid" in found else leader
    yield "Control plane", f"{found.get('url', '')}{process}"
    yield "Policy", f"{policy['name']}/{policy['version']}"
    yield "Policy fault", policy.get("error") or ""
    yield "Ray", ", ".join(filter(None, (ray.get("address"), ray.get("state"), "local" if ray.get("local") else "")))
    for name, url in (ray.get("links") or {}).items():
        yield name.capitalize(), url
    nodes, gpus = cluster["nodes"], cluster["gpus"]
    free = f"{number(cluster['free'])} free"
    yield "Cluster", f"{nodes} node{'s' * (nodes != 1)}, {gpus} GPU{'s' * (gpus != 1)}, {free}"
    queues = found.get("queues") or {}
    if queues.get("configured"):
        yield "Queues", f"{queues['configured']} (version {queues['version']})"
    jobs = found.get("jobs")
    if jobs is not None:
        yield "Jobs", ", ".join(f"{count} {state}" for state, count in jobs.items() if count) or "none"
    yield "Database", str(found["database"])
    yield "Store fault", found["engine"].get("store_error") or ""
