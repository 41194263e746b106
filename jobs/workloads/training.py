"""Data-parallel training of the text classifier: each worker learns from its share of every batch (torch DDP).

Each epoch ends with a checkpoint, and so does a request to stop. A checkpoint holds all that the rest of the run
depends on: weights, optimizer, position in the epoch, and every worker's random numbers. So a run that was stopped and
resumed with as many workers ends as if nothing had happened; on CPUs with two workers, bit for bit.
"""

from __future__ import annotations

import hashlib
import time
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler, TensorDataset

from gpusched import job

from .checkpoint import Checkpoints
from .corpus import FAMILIES, Corpus, Passage, Vocabulary
from .distributed import Workers
from .errors import WorkloadError
from .model import Shape, TextClassifier, hide_words, save_model
from .preemption import REQUEUE_ME, StopRequest
from .progress import Progress

HIDDEN_WORDS = 0.3
"""Share of the words that training hides from the model."""
LABEL_SMOOTHING = 0.1
WARM_UP = 0.05
"""Share of all steps over which the learning rate grows to its full height."""
LARGEST_GRADIENT = 1.0
STEP_LINE_EVERY = 2.0
"""Seconds without output after which a step prints a line of its own."""
MUST_MATCH = ("epochs", "batch_size", "lr", "d_model", "layers", "dropout", "seed")
"""Options that a checkpoint was made with and that a resumed run must have too."""


class MismatchError(WorkloadError):
    """A checkpoint belongs to a run with other options or other text."""


def tensors(passages: list[Passage], vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Passages as word numbers (passages, length) and labels (passages)."""
    tokens = [vocabulary.encode(passage.text) for passage in passages]
    labels = [passage.label for passage in passages]
    return torch.tensor(tokens, dtype=torch.long), torch.tensor(labels, dtype=torch.long)


class Training:
    """One run of training, from the newest checkpoint if there is one.

    Args:
        options: of `text_classifier`.
        workers: the group, joined.
        corpus: what to learn; the same for all workers.
        checkpoints: where the state is kept, on rank 0; None = nowhere.
        progress: prints, on rank 0.
        stop: says when to leave.
    """

    def __init__(
        self,
        options: Namespace,
        workers: Workers,
        corpus: Corpus,
        *,
        checkpoints: Checkpoints | None,
        progress: Progress,
        stop: StopRequest,
    ) -> None:
        self.options = options
        self.workers = workers
        self.checkpoints = checkpoints
        self.progress = progress
        self.stop = stop
        self.vocabulary = Vocabulary.of(corpus.training)
        self.data = TensorDataset(*tensors(corpus.training, self.vocabulary))
        self.unseen = tensors(corpus.validation[workers.rank :: workers.size], self.vocabulary)
        self.sampler = DistributedSampler(
            self.data, workers.size, workers.rank, shuffle=True, seed=options.seed, drop_last=True
        )
        self.batches = len(corpus.training) // options.batch_size
        texts = "\n".join(passage.text for passage in (*corpus.training, *corpus.validation))
        self.settings = {name: getattr(options, name) for name in MUST_MATCH}
        self.settings["text"] = hashlib.sha256(texts.encode()).hexdigest()[:16]

        torch.manual_seed(options.seed)  # the same first weights for every worker
        shape = Shape(
            len(self.vocabulary),
            len(FAMILIES),
            width=options.d_model,
            layers=options.layers,
            dropout=options.dropout,
        )
        self.model = TextClassifier(shape).to(workers.device)
        device_ids = [workers.device.index] if workers.device.type == "cuda" else None
        self.parallel = DistributedDataParallel(self.model, device_ids=device_ids)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=options.lr, weight_decay=0.05)
        torch.manual_seed(options.seed + 1 + workers.rank)  # but other dropout for each
        self.epoch = 0
        self.batch = 0
        self.sums = torch.zeros(3, dtype=torch.float64)
        """Loss, right answers and passages of this epoch so far."""

    def run(self) -> int:
        """Train to the end, or until asked to stop. Returns the exit code."""
        self._resume()
        while self.epoch < self.options.epochs:
            began = time.monotonic()
            if not self._train():
                return self._leave()
            self._finish_epoch(time.monotonic() - began)
        return 0

    def validate(self) -> tuple[float, float]:
        """Loss and accuracy on the validation passages of all workers."""
        self.progress.busy("validating")
        self.model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        with torch.no_grad():
            for tokens, labels in zip(*(part.split(128) for part in self.unseen), strict=True):
                if not len(labels):
                    continue  # fewer passages than workers
                scores = self.model(tokens.to(self.workers.device)).cpu()
                sums += _tally(functional.cross_entropy(scores, labels, reduction="sum"), scores, labels)
        loss, right, passages = self.workers.sum(sums).tolist()
        return loss / passages, right / passages

    def _train(self) -> bool:
        """The rest of this epoch's batches. False = one of the workers was asked to stop."""
        self.progress.busy("training")
        self.model.train()
        self.sampler.set_epoch(self.epoch)
        share = self.options.batch_size // self.workers.size
        batches = torch.tensor(list(self.sampler)).split(share)
        while self.batch < self.batches:
            # All workers leave after the same step, even if the signal reached only some of them.
            if self.workers.any(self.stop.asked):
                return False
            self._step(*self.data[batches[self.batch]])
            self.batch += 1
            if self.progress.silent_for > STEP_LINE_EVERY:
                loss, right, passages = self.sums.tolist()
                at = f"epoch {self.epoch + 1}/{self.options.epochs}  batch {self.batch}/{self.batches}"
                self.progress.say(f"{at}  loss {loss / passages:.3f}  accuracy {right / passages:.3f}")
        return True

    def _step(self, tokens: Tensor, labels: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        tokens, labels = tokens.to(self.workers.device), labels.to(self.workers.device)
        scores = self.parallel(hide_words(tokens, HIDDEN_WORDS))
        loss = functional.cross_entropy(scores, labels, label_smoothing=LABEL_SMOOTHING)
        self.optimizer.zero_grad()
        loss.backward()  # DDP averages the gradients over the workers meanwhile
        nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_GRADIENT)
        self.optimizer.step()
        self.sums += _tally(loss.detach() * len(labels), scores, labels)

    def _learning_rate(self) -> float:
        """Up to `lr` in a straight line, then down to nothing at the last step."""
        done = (self.epoch * self.batches + self.batch + 1) / (self.options.epochs * self.batches + 1)
        return float(self.options.lr * min(done / WARM_UP, (1 - done) / (1 - WARM_UP)))

    def _finish_epoch(self, seconds: float) -> None:
        loss, right, passages = self.workers.sum(self.sums).tolist()
        unseen_loss, unseen_accuracy = self.validate()
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums.zero_()
        self._save()
        self.progress.say(
            f"epoch {self.epoch}/{self.options.epochs}"
            f"  training loss {loss / passages:.4f} accuracy {right / passages:.4f}"
            f"  validation loss {unseen_loss:.4f} accuracy {unseen_accuracy:.4f}  {seconds:.1f} s"
        )

    def _leave(self) -> int:
        at = f"epoch {self.epoch + 1}, batch {self.batch}"
        if self._save():
            self.progress.say(f"asked to stop: saved at {at}, to go on from there")
            return REQUEUE_ME
        self.progress.say(f"asked to stop at {at}; nothing is saved without --checkpoint-dir")
        return 143  # 128 + SIGTERM, as if the signal had not been handled

    def _save(self) -> bool:
        """Write a checkpoint. False = there is no place for it. Returns when it is written, on every worker."""
        sums = self.workers.sum(self.sums)
        random = self.workers.gather(_random_state(self.workers.device))
        saved = False
        if self.checkpoints:
            self.progress.busy(f"writing a checkpoint to {self.checkpoints.folder}")
            state = {
                "settings": self.settings,
                "epoch": self.epoch,
                "batch": self.batch,
                "sums": sums,
                "random": random,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            step = self.epoch * self.batches + self.batch
            self.checkpoints.save(step, state)
            job.report_checkpoint(step)
            job.report_progress(step / (self.options.epochs * self.batches))
            saved = True
        # Nobody leaves before the file is whole: the end of one worker ends the others.
        return bool(self.workers.first(saved))

    def _resume(self) -> None:
        """Go on from the newest checkpoint. Rank 0 reads it, so that all workers go on from the same."""
        found = self.checkpoints.newest() if self.checkpoints else None
        path, state = self.workers.first(found) or (None, None)
        if state is None:
            return
        check_settings(state["settings"], self.settings, str(path))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.batch = state["epoch"], state["batch"]
        if self.workers.rank == 0:
            self.sums = state["sums"]  # of all workers
        if len(state["random"]) == self.workers.size:
            _set_random_state(state["random"][self.workers.rank])
        else:
            then = len(state["random"])
            self.progress.say(f"saved by {then} workers, resumed by {self.workers.size}: random numbers begin anew")
        self.progress.say(f"resumed from {path}: epoch {self.epoch + 1}, batch {self.batch}")


def check_settings(theirs: dict[str, Any], ours: dict[str, Any], path: str) -> None:
    """Refuse a checkpoint of another run.

    Raises:
        MismatchError: names the options that differ.
    """
    differ = [f"{name} {theirs.get(name)} (now {value})" for name, value in ours.items() if theirs.get(name) != value]
    if differ:
        raise MismatchError(
            f"{path} was made with {', '.join(differ)}: give the same options, or another --checkpoint-dir"
        )


def export(training: Training, options: Namespace) -> None:
    """Write the trained model where `batch_inference` can read it."""
    save_model(options.export.expanduser(), training.model, training.vocabulary, list(FAMILIES))


def _tally(loss: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    right = (scores.argmax(dim=1) == labels).sum()
    return torch.tensor([float(loss), float(right), len(labels)], dtype=torch.float64)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_random_state(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
