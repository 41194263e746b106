"""Train a small Transformer to tell what a passage of Python's documentation is about.

    python -m gpusched.jobs.workloads.text_classifier                      one worker
    torchrun --nproc-per-node 2 -m gpusched.jobs.workloads.text_classifier two workers on this machine
    gpusched run jobs/examples/text-classifier.yaml                        two workers on a Ray cluster

Prints loss and accuracy by epoch. With a checkpoint directory it survives whatever ends it: started again, it goes on.
On SIGTERM it saves after the step at hand and exits 75, which asks gpusched to start it again later.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import Counter
from pathlib import Path

from gpusched import job

from . import corpus
from .errors import WorkloadError
from .preemption import StopRequest
from .progress import Progress


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; a bad one prints what is wrong and exits 2."""
    parser = argparse.ArgumentParser(
        prog="text_classifier",
        description="Train a small Transformer to tell what a passage of Python's documentation is about.",
        epilog="Who is who among the workers is read from RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.",
    )
    add = parser.add_argument
    add("--epochs", type=_count, default=4, metavar="N", help="times that every passage is learned from (%(default)s)")
    add("--batch-size", type=_count, default=64, metavar="N", help="passages a step, over all workers (%(default)s)")
    add("--lr", type=_positive, default=2e-3, metavar="X", help="highest learning rate (%(default)s)")
    add("--d-model", type=_count, default=64, metavar="N", help="width of the model, a multiple of 4 (%(default)s)")
    add("--layers", type=_count, default=2, metavar="N", help="Transformer encoder layers (%(default)s)")
    add(
        "--dropout",
        type=float,
        default=0.2,
        metavar="X",
        help="share of activations left out in training (%(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="same seed and workers, same result (%(default)s)")
    add("--limit", type=_count, metavar="N", help="passages of each class to learn from, for a quick try (all)")
    add(
        "--checkpoint-dir",
        type=Path,
        default=os.environ.get("GPUSCHED_CHECKPOINT_DIR"),
        metavar="DIR",
        help="where to save each epoch and to resume from ($GPUSCHED_CHECKPOINT_DIR; without it nothing is saved)",
    )
    add("--export", type=Path, metavar="FILE", help="write the trained model there, for batch_inference")
    add(
        "--backend",
        choices=["auto", "gloo", "nccl"],
        default="auto",
        help="gloo where workers share a GPU (%(default)s)",
    )
    given = parser.parse_args(arguments)
    if given.d_model % 4:
        parser.error(f"--d-model {given.d_model} is no multiple of 4")
    if not 0 <= given.dropout < 1:
        parser.error(f"--dropout {given.dropout} is not from 0 to below 1")
    workers = int(os.environ.get("WORLD_SIZE", "1"))
    if given.batch_size % workers:
        parser.error(f"--batch-size {given.batch_size} cannot be shared by {workers} workers")
    return given


def main(arguments: list[str] | None = None) -> int:
    """Train as the command line says. Returns the exit code: 0 done, 75 saved and asked to stop, 1 failed."""
    given = options(arguments)
    stop = StopRequest()
    first = os.environ.get("RANK", "0") == "0"
    try:
        with Progress(speaks=first) as progress:
            return train(given, stop, progress, first=first)
    except (OSError, WorkloadError) as error:
        print(f"text_classifier: {error}", file=sys.stderr, flush=True)
        return 1


def train(given: argparse.Namespace, stop: StopRequest, progress: Progress, *, first: bool) -> int:
    """Read the text, join the other workers, train, export. Returns the exit code."""
    progress.say("loading torch")
    progress.busy("loading torch")
    # Not at the top: torch takes seconds to load, and --help or a wrong option should not wait for it.
    import torch  # noqa: PLC0415 - as said above

    from .checkpoint import Checkpoints  # noqa: PLC0415 - loads torch
    from .distributed import Workers  # noqa: PLC0415 - loads torch
    from .training import Training, export  # noqa: PLC0415 - loads torch

    torch.set_num_threads(1)  # several workers share a machine: more threads only fight for its cores
    attempt = 0 if job.FENCE in os.environ else job.attempt()
    checkpoints = Checkpoints(given.checkpoint_dir, attempt) if first and given.checkpoint_dir else None
    text = _read_text(given, progress) if first else None
    workers = Workers(given.backend)
    progress.busy(f"waiting for {workers.size} workers to meet at {os.environ.get('MASTER_ADDR', 'this process')}")
    with workers:
        # Rank 0's text for everyone: their Pythons may be of different versions.
        text = workers.first(text)
        training = Training(given, workers, text, checkpoints=checkpoints, progress=progress, stop=stop)
        parameters = sum(weights.numel() for weights in training.model.parameters())
        progress.say(
            f"{workers.size} worker{'s' * (workers.size > 1)} on {workers.device.type} ({workers.backend});"
            f" {given.layers} layers, width {given.d_model}, {parameters:,} parameters;"
            f" {training.batches} batches an epoch"
        )
        code = training.run()
        if code == 0:
            loss, accuracy = training.validate()
            progress.say(f"validation loss {loss:.4f} accuracy {accuracy:.4f}; {_baseline(text)}")
            if given.export and first:
                export(training, given)
                progress.say(f"model written to {given.export}")
        workers.wait_for_all()
    return code


def _read_text(given: argparse.Namespace, progress: Progress) -> corpus.Corpus:
    progress.busy("reading the standard library's documentation")
    text = corpus.load(given.limit)
    files = [len({passage.source for passage in part}) for part in (text.training, text.validation)]
    progress.say(
        f"{len(text.training):,} passages from {files[0]} files of Python's standard library to learn from,"
        f" {len(text.validation):,} from {files[1]} other files to validate on; {_baseline(text)}"
    )
    if len(text.training) < given.batch_size:
        raise corpus.CorpusError(
            f"--batch-size {given.batch_size} is more than the {len(text.training)} passages there are"
        )
    return text


def _baseline(text: corpus.Corpus) -> str:
    """What those reach who have learned nothing."""
    [(label, count)] = Counter(passage.label for passage in text.validation).most_common(1)
    name = list(corpus.FAMILIES)[label]
    return f"guessing: {1 / len(corpus.FAMILIES):.3f}, always `{name}`: {count / len(text.validation):.3f}"


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0, or not finite")
    return number


if __name__ == "__main__":
    sys.exit(main())
