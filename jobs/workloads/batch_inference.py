"""Classify many passages with the model that `text_classifier --export` wrote.

    python -m gpusched.jobs.workloads.batch_inference --model FILE --output DIR
    gpusched run jobs/examples/batch-inference.yaml

Predictions are written as JSON lines, one file a shard. A run that was stopped goes on with the shards that are
missing; several workers (RANK, WORLD_SIZE) share them and need not talk to each other. On SIGTERM it leaves after the
batch at hand and exits 75, which asks gpusched to start it again later.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

from . import corpus
from .errors import WorkloadError
from .preemption import REQUEUE_ME, StopRequest
from .progress import Progress

LINE_EVERY = 2.0
"""Seconds without output after which the state of things is printed."""


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; a bad one prints what is wrong and exits 2."""
    parser = argparse.ArgumentParser(
        prog="batch_inference",
        description="Classify many passages with the model that text_classifier --export wrote.",
        epilog="Which share of the passages is this worker's is read from RANK and WORLD_SIZE.",
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="what text_classifier --export wrote")
    add("--output", type=Path, required=True, metavar="DIR", help="where predictions go, one file a shard")
    add(
        "--input",
        type=Path,
        metavar="FILE",
        help="text to classify, one passage a line (the passages that training did not see, with their right answers)",
    )
    add("--batch-size", type=_count, default=32, metavar="N", help="passages a batch (%(default)s)")
    add("--shard-size", type=_count, default=256, metavar="N", help="passages a shard (%(default)s)")
    add("--quantize", action="store_true", help="8-bit integer weights (dynamic quantization); on the CPU")
    add(
        "--prune",
        type=_share,
        default=0.0,
        metavar="SHARE",
        help="set the smallest weights to zero, 0.3 = 30 %% of them",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Classify as the command line says. Returns the exit code: 0 done, 75 asked to stop, 1 failed."""
    given = options(arguments)
    stop = StopRequest()
    rank, workers = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    try:
        with Progress(speaks=True) as progress:
            return classify(given, stop, progress, rank, workers)
    except (OSError, WorkloadError) as error:
        print(f"batch_inference: {error}", file=sys.stderr, flush=True)
        return 1


def classify(given: argparse.Namespace, stop: StopRequest, progress: Progress, rank: int, workers: int) -> int:
    """Do this worker's share. Returns the exit code."""
    progress.say("loading torch")
    progress.busy("loading torch")
    # Not at the top: torch takes seconds to load, and --help or a wrong option should not wait for it.
    import torch  # noqa: PLC0415 - as said above

    from .inference import (  # noqa: PLC0415 - loads torch
        Classifier,
        Shards,
        Timing,
        accuracy,
        classify_shards,
        pruned,
        quantized,
        size,
    )
    from .model import load_model  # noqa: PLC0415 - loads torch

    torch.set_num_threads(1)  # several workers share a machine: more threads only fight for its cores
    model, vocabulary, classes = load_model(given.model.expanduser())
    before = size(model)
    if given.prune:
        model = pruned(model, given.prune)
    if given.quantize:
        model = quantized(model)
    on_gpu = torch.cuda.is_available() and not given.quantize
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        if on_gpu
        else torch.device("cpu")
    )
    progress.say(
        f"model on {device.type}: {before / 1e6:.2f} MB in its file"
        + (f", {given.prune:.0%} of the linear weights pruned" if given.prune else "")
        + (f", {size(model) / 1e6:.2f} MB as 8-bit integers" if given.quantize else "")
    )
    progress.busy("reading the text")
    made_by = {
        "model": hashlib.sha256(given.model.expanduser().read_bytes()).hexdigest()[:16],
        "quantize": given.quantize,
        "prune": given.prune,
    }
    shards = Shards(given.output.expanduser(), _passages(given.input), given.shard_size, made_by)
    todo = shards.missing(rank, workers)
    progress.say(
        f"worker {rank} of {workers}: {len(todo)} of {shards.count} shards to do,"
        f" {len(shards.passages):,} passages in all"
    )

    def goes_on(done: int, timing: Timing) -> bool:
        progress.busy("classifying")
        if progress.silent_for > LINE_EVERY:
            progress.say(f"{done} of {len(todo)} shards, {timing.throughput():,.0f} passages/s")
        return not stop.asked

    timing = classify_shards(
        Classifier(model.to(device), vocabulary, classes, device), shards, todo, given.batch_size, goes_on
    )
    if timing.batches:
        p50, p99 = (1000 * timing.percentile(percent) for percent in (50, 99))
        progress.say(
            f"throughput {timing.throughput():,.0f} passages/s;"
            f" latency of a batch of {given.batch_size}: p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )
    if shards.missing(rank, workers):
        progress.say("asked to stop: the shards that are done stay, the rest is for the next attempt")
        return REQUEUE_ME
    right = accuracy(shards.records())
    done = f"{shards.done()} of {shards.count} shards are in {given.output}"
    progress.say(done if right is None else f"{done}, accuracy {right:.4f}")
    return 0


def _passages(path: Path | None) -> list[corpus.Passage]:
    if path is None:
        return corpus.load().validation
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path} is no UTF-8 text: {error}") from error
    passages = [
        corpus.Passage(" ".join(corpus.words(line)), source=f"{path.name}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not passages:
        raise WorkloadError(f"{path} has no text in it")
    return passages


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to below 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
