"""The same training as an ordinary Ray Train script: it knows nothing of gpusched, which runs it unmodified.

    python -m gpusched.jobs.workloads.ray_train_classifier        on this machine, or on the cluster of $RAY_ADDRESS
    gpusched run jobs/examples/ray-train.yaml                     on GPUs that gpusched has reserved

Started again with the same storage, Ray Train goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, prepare_data_loader, prepare_model
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from . import corpus
from .model import Shape, TextClassifier, hide_words

CHECKPOINT = "state.pt"
log = logging.getLogger(__name__)


def train(config: dict[str, Any]) -> None:
    """What each worker does. Ray Train has made the process group; this runs in a thread of the worker."""
    torch.set_num_threads(1)  # several workers share a machine: more threads only fight for its cores
    torch.manual_seed(config["seed"])
    # Not get_device(): it names a GPU whenever one was asked for, also where the cluster's GPUs are only numbers.
    device = ray.train.torch.get_device() if torch.cuda.is_available() else torch.device("cpu")
    text = corpus.load(config["limit"])
    words = corpus.Vocabulary.of(text.training)

    def dataset(passages: list[corpus.Passage]) -> TensorDataset:
        tokens = torch.tensor([words.encode(passage.text) for passage in passages])
        return TensorDataset(tokens, torch.tensor([passage.label for passage in passages]))

    context = ray.train.get_context()
    share = config["batch_size"] // context.get_world_size()
    loader = DataLoader(dataset(text.training), batch_size=share, shuffle=True, drop_last=True)
    loader = prepare_data_loader(loader, move_to_device=False)  # each worker reads its own part
    unseen_tokens, unseen_labels = dataset(text.validation).tensors

    plain = TextClassifier(Shape(len(words), len(corpus.FAMILIES)))
    model = prepare_model(plain, move_to_device=device)  # wraps it in DDP
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"])
    start = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder, CHECKPOINT), map_location="cpu", weights_only=True)
        plain.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["epoch"]

    for epoch in range(start, config["epochs"]):
        if context.get_world_size() > 1:
            loader.sampler.set_epoch(epoch)
        model.train()
        losses = []
        for tokens, labels in loader:
            scores = model(hide_words(tokens, share=0.3).to(device))
            loss = functional.cross_entropy(scores, labels.to(device), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())

        plain.eval()
        with torch.no_grad():
            scores = torch.cat([plain(part.to(device)).cpu() for part in unseen_tokens.split(128)])
        metrics = {
            "epoch": epoch + 1,
            "training_loss": sum(losses) / len(losses),
            "validation_loss": functional.cross_entropy(scores, unseen_labels).item(),
            "validation_accuracy": (scores.argmax(dim=1) == unseen_labels).float().mean().item(),
        }
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if context.get_world_rank() == 0:
                state = {"model": plain.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
                torch.save(state, Path(folder, CHECKPOINT))
                saved = ray.train.Checkpoint.from_directory(folder)
                log.info("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
            ray.train.report(metrics, checkpoint=saved)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the text classifier with Ray Train.")
    add = parser.add_argument
    add("--workers", type=int, default=2, metavar="N", help="(%(default)s)")
    add("--gpus-per-worker", type=float, default=0, metavar="N", help="(%(default)s)")
    add("--epochs", type=int, default=3, metavar="N", help="(%(default)s)")
    add("--batch-size", type=int, default=64, metavar="N", help="passages a step, over all workers (%(default)s)")
    add("--lr", type=float, default=1e-3, metavar="X", help="learning rate (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    add("--limit", type=int, metavar="N", help="passages of each class to learn from, for a quick try (all)")
    add(
        "--storage",
        default=os.environ.get("GPUSCHED_CHECKPOINT_DIR", "~/.cache/gpusched/checkpoints/ray-train"),
        metavar="DIR",
        help="where checkpoints are kept ($GPUSCHED_CHECKPOINT_DIR or %(default)s); all nodes must see it",
    )
    given = parser.parse_args()

    ray.init()
    resources = {"CPU": 1.0} | ({"GPU": given.gpus_per_worker} if given.gpus_per_worker else {})
    trainer = TorchTrainer(
        train,
        train_loop_config={name: getattr(given, name) for name in ("epochs", "batch_size", "lr", "seed", "limit")},
        torch_config=TorchConfig(backend="nccl" if torch.cuda.is_available() else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=given.workers, use_gpu=bool(given.gpus_per_worker), resources_per_worker=resources
        ),
        # The same name and storage again = resume.
        run_config=ray.train.RunConfig(name="text-classifier", storage_path=str(Path(given.storage).expanduser())),
    )
    result = trainer.fit()
    print(f"validation accuracy {result.metrics['validation_accuracy']:.4f}", flush=True)


if __name__ == "__main__":
    main()
