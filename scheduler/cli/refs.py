"""Jobs by id, name, `@` and label, as every verb takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from ...jobs.errors import GpuschedError, NotFoundError
from .session import Session

if TYPE_CHECKING:
    from ..client import Client

PATIENCE = 0.5
"""Seconds that a shell waits for completions."""


class JobRef(click.ParamType[str]):
    """An id, ULID, name, `@` or `@~N`; the shell completes those of unfinished jobs."""

    name = "job"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Ids and names that begin like this."""
        return list(_completed(ctx, incomplete, _jobs))


class NodeRef(click.ParamType[str]):
    """A node's name, completed likewise."""

    name = "node"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Names that begin like this."""
        return list(_completed(ctx, incomplete, _nodes))


class QueueRef(click.ParamType[str]):
    """A queue's name, completed by those that take jobs, or without configuration by those of unfinished jobs."""

    name = "queue"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Names that begin like this."""
        return list(_completed(ctx, incomplete, _queues))


def _jobs(client: Client) -> Iterator[tuple[str, str]]:
    for job in client.jobs(limit=200, newest=True):
        what = f"{job['state']}, {job['request']}"
        yield str(job["id"]), f"{job['name']}: {what}"
        yield job["name"], f"job {job['id']}: {what}"


def _nodes(client: Client) -> Iterator[tuple[str, str]]:
    for node in client.nodes():
        yield node["name"], f"{node['state']}, {node['gpus']} GPUs"


def _queues(client: Client) -> Iterator[tuple[str, str]]:
    found = client.queues()
    if not found["configured"]:
        yield "default", ""
    for queue in found["queues"]:
        if queue["takes_jobs"]:
            yield queue["name"], f"{queue['running']} jobs on GPUs, {queue['waiting']} waiting"


def _completed(
    ctx: click.Context, begun: str, ask: Callable[[Client], Iterator[tuple[str, str]]]
) -> Iterator[CompletionItem]:
    """What `ask` finds that begins so; nothing when the control plane is slow or not there: a shell shows no errors."""
    from ..client import Client, connect  # noqa: PLC0415 - for completion alone

    try:
        found = connect(ctx.ensure_object(Session).config)
        hasty = Client(found.url, found.token, timeout=PATIENCE, ca=found.ca, pinned=found.pinned)
        matches = {value: about for value, about in ask(hasty) if value.startswith(begun)}
    except GpuschedError:
        return
    for value, about in matches.items():
        yield CompletionItem(value, help=about)


JOB = JobRef()
NODE = NodeRef()
QUEUE = QueueRef()


def owner_of(ref: str, session: Session) -> str:
    """Whose jobs a reference counts: `@` is the last of one's own."""
    return session.user if ref.startswith("@") else ""


def check_named(refs: Sequence[str], labels: Mapping[str, str]) -> None:
    """Refuse a command line that names no job, before anything is asked.

    Raises:
        UsageError: neither references nor labels are given, or both.
    """
    if bool(refs) == bool(labels):
        raise click.UsageError(
            "give jobs or a selector, not both"
            if refs
            else "name a job: an id, a name, @ for the last one, or -l KEY=VALUE",
            click.get_current_context(),
        )


def named(
    session: Session, client: Client, refs: Sequence[str], labels: Mapping[str, str], *, all_states: bool = False
) -> list[str]:
    """The references given, or the ids of one's own jobs that have these labels.

    Raises:
        UsageError: neither is given, or both.
        NotFoundError: no job has these labels.
    """
    check_named(refs, labels)
    if refs:
        return list(dict.fromkeys(refs))
    found = [str(job["id"]) for job in client.jobs(user=session.user, labels=labels, all_states=all_states)]
    if not found:
        wanted = ", ".join(f"{key}={value}" for key, value in labels.items())
        raise NotFoundError(f"no job of {session.user} has the label {wanted}", hint="`gpusched ps` lists your jobs")
    return found


def each(refs: Sequence[str], act: Callable[[str], Any]) -> list[Any]:
    """Do something to each job. One that fails does not keep the others from it; the first error is raised at last.

    Raises:
        GpuschedError: the first one; the others are printed before.
    """
    done: list[Any] = []
    failed: list[GpuschedError] = []
    for ref in refs:
        try:
            done.append(act(ref))
        except GpuschedError as error:
            failed.append(error)
            if error.exit_code == 7:  # noqa: PLR2004 - unreachable: the others would fail likewise
                break
    if failed:
        from .failures import describe, write  # noqa: PLC0415 - not needed where nothing went wrong

        session = click.get_current_context().ensure_object(Session)
        for other in failed[1:]:
            write(describe(other)[0], as_json=False, session=session)
        raise EachError(failed[0], done)
    return done


class EachError(GpuschedError):
    """What went wrong with one of several jobs; carries what was done to the others."""

    def __init__(self, error: GpuschedError, done: list[Any]) -> None:
        super().__init__(error.message, hint=error.hint)
        self.code = error.code
        self.exit_code = error.exit_code
        self.done = done
