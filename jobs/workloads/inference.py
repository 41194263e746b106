"""Classify passages shard by shard. A shard's predictions are one file, whole or absent, so a stopped run goes on."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from .corpus import Passage, Vocabulary
from .errors import WorkloadError
from .files import write_result, write_whole
from .model import TextClassifier


def pruned(model: TextClassifier, share: float) -> TextClassifier:
    """Set the smallest weights of all linear layers to zero, this share of them (magnitude pruning)."""
    linear = [(module, "weight") for module in model.modules() if isinstance(module, nn.Linear)]
    prune.global_unstructured(linear, pruning_method=prune.L1Unstructured, amount=share)
    for module, name in linear:
        prune.remove(module, name)  # the zeros become the weights
    return model


def quantized(model: TextClassifier) -> TextClassifier:
    """Keep the weights of all linear layers as 8-bit integers (dynamic quantization). For CPUs only.

    Raises:
        WorkloadError: this torch has no such tool any more.
    """
    try:
        from torch.ao.quantization import quantize_dynamic  # noqa: PLC0415 - not in every torch
    except ImportError as error:
        raise WorkloadError("--quantize needs torch.ao.quantization, which this version of torch is without") from error
    with warnings.catch_warnings():
        # It warns that it will move to another package one day.
        warnings.simplefilter("ignore")
        small: TextClassifier = quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    return small


def size(model: TextClassifier) -> int:
    """Bytes that the model takes in a file."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


@dataclass(slots=True)
class Timing:
    """How long batches took, in seconds, and how many passages were in them."""

    batches: list[float] = field(default_factory=list)
    passages: int = 0

    def add(self, seconds: float, passages: int) -> None:
        """Count one batch."""
        self.batches.append(seconds)
        self.passages += passages

    def throughput(self) -> float:
        """Passages a second."""
        return self.passages / sum(self.batches)

    def percentile(self, percent: float) -> float:
        """Seconds within which this many per cent of the batches were done (nearest rank)."""
        return sorted(self.batches)[max(math.ceil(percent / 100 * len(self.batches)), 1) - 1]


@dataclass(slots=True)
class Classifier:
    """A model with its words and the names of its answers."""

    model: TextClassifier
    vocabulary: Vocabulary
    classes: list[str]
    device: torch.device

    def classify(self, passages: list[Passage]) -> list[dict[str, Any]]:
        """One record for each passage: what it is, what it was taken for, and how sure that is."""
        tokens = torch.tensor([self.vocabulary.encode(passage.text) for passage in passages])
        with torch.inference_mode():
            sure, answers = self.model(tokens.to(self.device)).softmax(dim=1).max(dim=1)
        return [
            {
                "source": passage.source,
                "text": passage.text,
                "label": self.classes[passage.label] if passage.label >= 0 else None,
                "prediction": self.classes[answer],
                "probability": round(probability, 4),
            }
            for passage, answer, probability in zip(passages, answers.tolist(), sure.tolist(), strict=True)
        ]


class Shards:
    """The folder that predictions go to, one file `part-NNNNN.jsonl` for every so many passages.

    Args:
        folder: made if need be.
        passages: all of them, for all workers.
        length: passages a shard.
        made_by: what the predictions depend on; a folder holds those of one such run only.

    Raises:
        WorkloadError: the folder holds the predictions of another run.
    """

    def __init__(self, folder: Path, passages: list[Passage], length: int, made_by: dict[str, Any]) -> None:
        self.folder = folder
        self.passages = passages
        self.length = length
        self.count = -(-len(passages) // length)
        digest = hashlib.sha256("\n".join(passage.text for passage in passages).encode()).hexdigest()[:16]
        made_by = {**made_by, "text": digest, "shard_size": length}
        note = folder / "made-by.json"
        if not note.exists():
            write_whole(note, lambda file: file.write(json.dumps(made_by, indent=2).encode()))
        elif json.loads(note.read_text()) != made_by:
            raise WorkloadError(f"{folder} holds predictions of another model, text or options: give another --output")

    def missing(self, rank: int, workers: int) -> list[int]:
        """The shards of this worker that are still to be done."""
        return [shard for shard in range(rank, self.count, workers) if not self._file(shard).exists()]

    def done(self) -> int:
        """How many shards are done, whoever did them."""
        return self.count - len(self.missing(0, 1))

    def batches(self, shard: int, batch_size: int) -> Iterator[list[Passage]]:
        """The passages of a shard, some at a time."""
        end = min((shard + 1) * self.length, len(self.passages))
        for start in range(shard * self.length, end, batch_size):
            yield self.passages[start : min(start + batch_size, end)]

    def write(self, shard: int, records: list[dict[str, Any]]) -> None:
        """Keep the predictions of a shard."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_result(self._file(shard), lambda file: file.write(lines.encode()))

    def records(self) -> Iterator[dict[str, Any]]:
        """The predictions of all shards that are done, whoever did them."""
        for shard in range(self.count):
            if self._file(shard).exists():
                yield from map(json.loads, self._file(shard).read_text().splitlines())

    def _file(self, shard: int) -> Path:
        return self.folder / f"part-{shard:05d}.jsonl"


def classify_shards(
    classifier: Classifier, shards: Shards, todo: list[int], batch_size: int, goes_on: Callable[[int, Timing], bool]
) -> Timing:
    """Classify some shards and keep each when it is done.

    Args:
        classifier: answers.
        shards: what to classify, and where the answers go.
        todo: which of the shards.
        batch_size: passages a batch.
        goes_on: asked before every batch, with the number of shards done; False leaves the shard at hand undone.
    """
    timing = Timing()
    if todo:
        # The first batch pays for what torch sets up once; it is not measured.
        classifier.classify(next(shards.batches(todo[0], batch_size)))
    for done, shard in enumerate(todo):
        records: list[dict[str, Any]] = []
        for batch in shards.batches(shard, batch_size):
            if not goes_on(done, timing):
                return timing
            began = time.perf_counter()
            records += classifier.classify(batch)
            timing.add(time.perf_counter() - began, len(batch))
        shards.write(shard, records)
    return timing


def accuracy(records: Iterator[dict[str, Any]]) -> float | None:
    """Share of right answers among the records that say what is right; None = none does."""
    known = [record["prediction"] == record["label"] for record in records if record["label"] is not None]
    return sum(known) / len(known) if known else None
