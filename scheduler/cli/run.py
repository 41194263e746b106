"""`gpusched run`."""

from __future__ import annotations

from typing import Any

import click

from . import job_options
from .session import Session, pass_session
from .submit import follow_to_end
from .verb import verb

EXAMPLES = """
gpusched run -- python train.py --epochs 3
gpusched run --gpus 1 --time 1h -- python train.py
gpusched run job.yaml; echo "exit code $?"
"""


@verb("run", cls=job_options.JobCommand, examples=EXAMPLES)
@job_options.job_options
@click.option("--queue-anyway", is_flag=True, help="Queue it though no node of this cluster can hold it.")
@pass_session
@click.pass_context
def run(ctx: click.Context, session: Session, *, job: dict[str, Any], queue_anyway: bool) -> None:
    """Submit a job, follow its output, and exit with its code.

    The job's output goes to standard output, all else to standard error: at no time is it left open what is being
    waited for. Lines of a job with several nodes are marked with their rank. Ctrl-C leaves the job running.

    Exit codes: the job's own, 128+n if signal n ended it, 1 if it was cancelled or lost without one, 130 after Ctrl-C;
    4 a fault in the file, 5 no node can hold it, 7 no control plane.
    """
    specs = job_options.read(ctx, session, job)
    if len(specs) > 1:
        raise click.UsageError(f"`run` takes one job, and there are {len(specs)}: `gpusched submit` queues them", ctx)
    with session.narrator() as narrator:
        client = session.started(narrator)
        narrator.say("submitting")
        (accepted,) = client.submit(specs, queue_anyway=queue_anyway)
        narrator.note(f"job {accepted['id']} ({accepted['name']}) is queued")
    ctx.exit(follow_to_end(session, accepted))
