"""`gpusched submit`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ...jobs.errors import InfeasibleError
from ..output import SCHEMA_VERSION, Style, relative, safe, to_json, to_lines, to_yaml
from . import job_options
from .follow import Printer, ended, exit_code_of, follow
from .narrator import Narrator
from .session import Session, pass_session
from .verb import form_option, verb
from .waiting import wait_for

if TYPE_CHECKING:
    from ...jobs.spec import JobSpec
    from ..client import Client

JSON = dict[str, Any]

NO_RAY = "none"
"""The Ray address of a control plane that does without a cluster, and never gets ready."""
WOULD_WAIT = 10
"""The exit code of a dry run whose jobs are valid and would wait."""
EXAMPLES = """
gpusched submit job.yaml
gpusched submit job.yaml --gpus H100:8 -N 2 --time 2h
gpusched submit --gpus 1 -- python train.py --epochs 3
gpusched submit train.sh               # a script with `#GPUSCHED key: value` lines
gpusched submit job.yaml --dry-run     # what would become of it: exit 0 now, 10 later, 5 never
id=$(gpusched submit -q job.yaml)
"""


@verb("submit", cls=job_options.JobCommand, examples=EXAMPLES)
@job_options.job_options
@click.option("-q", "--quiet", "--parsable", is_flag=True, help="Print the ids alone.")
@click.option("--dry-run", "--test-only", is_flag=True, help="Queue nothing: say what would become of it.")
@click.option("--hold", is_flag=True, help="Let it wait until `gpusched release`.")
@click.option("--queue-anyway", is_flag=True, help="Queue it though no node of this cluster can hold it.")
@click.option("--wait", "waits", is_flag=True, help="Block until it has ended, and exit with its code.")
@click.option("--follow", "follows", is_flag=True, help="Print its output until it has ended, and exit with its code.")
@form_option
@pass_session
@click.pass_context
def submit(
    ctx: click.Context,
    session: Session,
    *,
    job: JSON,
    style: Style,
    quiet: bool,
    dry_run: bool,
    hold: bool,
    queue_anyway: bool,
    waits: bool,
    follows: bool,
) -> None:
    """Queue a job: a file of jobs, a script, or a command.

    FILE holds one job or several (YAML documents parted by `---`), queued all or none, or is a script with
    `#GPUSCHED key: value` lines. Options win over what it says. The workdir is copied at this moment: a job that
    waits runs the code that was submitted.

    With no control plane configured, one is started on this machine, with a local Ray.
    """
    specs = job_options.read(ctx, session, job)
    if follows and len(specs) > 1:
        raise click.UsageError("--follow is for one job; `gpusched logs -f` follows any of them", ctx)
    with session.narrator(silent=quiet) as narrator:
        client = session.started(narrator)
        if dry_run:
            narrator.say("waiting for the cluster")
            if session.config["ray_address"] != NO_RAY:
                until_ready(client, narrator)
            verdicts = client.dry_run(specs)
        else:
            narrator.say("submitting" if len(specs) == 1 else f"submitting {len(specs)} jobs")
            jobs = client.submit(specs, hold=hold, queue_anyway=queue_anyway)
    if dry_run:
        show_verdicts(specs, verdicts, style)
        ctx.exit(exit_code_of_verdicts(verdicts))
    show_accepted(jobs, style, quiet=quiet)
    if follows:
        ctx.exit(follow_to_end(session, jobs[0]))
    if waits:
        ctx.exit(wait_to_end(session, client, jobs, quiet=quiet))


def until_ready(client: Client, narrator: Narrator, within: float = 120.0) -> None:
    """Wait until the control plane knows nodes: before that, no verdict means anything. At last go on without."""
    end = time.monotonic() + within
    while not (status := client.status()).get("ready") and time.monotonic() < end:
        ray = status.get("ray") or {}
        if ray.get("error"):
            return
        progress = status.get("progress") or [ray.get("state") or "waiting for the cluster"]
        narrator.say(progress[-1])
        time.sleep(0.2)


def exit_code_of_verdicts(verdicts: Sequence[JSON]) -> int:
    """0 = all would start now, 5 = one never fits, else 10."""
    kinds = {verdict["verdict"] for verdict in verdicts}
    return InfeasibleError.exit_code if "never" in kinds else WOULD_WAIT if "wait" in kinds else 0


def show_verdicts(specs: Sequence[JobSpec], verdicts: Sequence[JSON], style: Style) -> None:
    """Each job as it was resolved, and what would become of it; a table is YAML with the verdict as a comment."""
    if style.form in {"json", "jsonl"}:
        sys.stdout.write(to_json({"schema_version": SCHEMA_VERSION, "verdicts": list(verdicts)}))
        return
    if style.form == "yaml":
        sys.stdout.write("---\n".join(spec.to_yaml() for spec in specs))
        return
    documents = []
    for spec, verdict in zip(specs, verdicts, strict=True):
        what = {"start": "", "wait": "would wait: ", "never": "never fits this cluster: "}[verdict["verdict"]]
        documents.append(f"# {what}{safe(verdict['why'])}\n{spec.to_yaml()}")
    sys.stdout.write("---\n".join(documents))


def show_accepted(jobs: Sequence[JSON], style: Style, *, quiet: bool) -> None:
    """What became of a submission: ids, positions, estimates, and what to type next."""
    if quiet or style.form == "name":
        sys.stdout.write("".join(f"{job['id']}\n" for job in jobs))
    elif style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, "jobs": list(jobs)}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
    elif style.form == "jsonl":
        sys.stdout.write(to_lines(jobs))
    else:
        now = time.time()
        for job in jobs:
            click.echo(accepted(job, now))
        job_id = jobs[-1]["id"]
        next_steps = (
            (f"gpusched logs -f {job_id}", "follow its output"),
            (f"gpusched explain {job_id}", "why it waits, and until when"),
            (f"gpusched cancel {job_id}", "take it back"),
        )
        if jobs[-1]["state"] == "HELD":
            next_steps = ((f"gpusched release {job_id}", "let it go"), *next_steps[1:])
        for command, meaning in next_steps:
            click.echo(f"  {command:<26} {meaning}")
    sys.stdout.flush()


def accepted(job: JSON, now: float) -> str:
    """One line on a job that was just queued."""
    name = f"job {job['id']} ({safe(job['name'])})"
    if job["state"] == "HELD":
        return f"{name} is held"
    words = []
    if job.get("position"):
        words.append(f"position {job['position']}")
    if job.get("eta"):
        words.append(f"expected to start {relative(job['eta'], now)}")
    message = job.get("message", "")
    if message and job.get("reason"):
        words.append(safe(message))
    return f"{name} is queued" + (f": {'; '.join(words)}" if words else "")


def follow_to_end(session: Session, job: JSON) -> int:
    """Print a job's output until it ends; the code to exit with. Ctrl-C leaves it running and says so."""
    with session.narrator() as narrator:
        try:
            end = follow(
                session.client,
                job["id"],
                narrator=narrator,
                printer=Printer(narrator, marked=pieces_of(session, job) > 1),
            )
        except KeyboardInterrupt:
            narrator.note(goes_on(job))
            raise
        narrator.say("")
        narrator.note(ended(job, end["end"], end.get("exit_code"), end.get("message") or ""))
    return exit_code_of(end["end"], end.get("exit_code"))


def pieces_of(session: Session, job: JSON) -> int:
    """How many ranks a job has."""
    pieces: int = session.client().job(job["id"])["resources"]["num_nodes"]
    return pieces


def goes_on(job: JSON) -> str:
    """What Ctrl-C leaves behind."""
    number = job["id"]
    return f"job {number} goes on: `gpusched logs -f {number}` follows it, `gpusched cancel {number}` ends it"


def wait_to_end(session: Session, client: Client, jobs: Sequence[JSON], *, quiet: bool) -> int:
    """Block until jobs have ended; the code of the first one that did not succeed."""
    codes = []
    with session.narrator(silent=quiet) as narrator:
        for job in jobs:
            try:
                _, last = wait_for(session.client, client, str(job["id"]), narrator=narrator)
            except KeyboardInterrupt:
                narrator.note(goes_on(job))
                raise
            narrator.note(ended(last, last["state"], last["exit_code"], last["message"]))
            codes.append(exit_code_of(last["state"], last["exit_code"]))
    return next((code for code in codes if code), 0)
