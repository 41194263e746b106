"""The batch inference job, as real processes: right answers, whole shards, and a stop that loses nothing."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")

from gpusched.jobs.workloads import batch_inference, corpus, inference  # noqa: E402 - needs torch
from gpusched.jobs.workloads.errors import WorkloadError  # noqa: E402 - beside it
from gpusched.jobs.workloads.model import Shape, TextClassifier, load_model, save_model  # noqa: E402 - needs torch

PATIENCE = 120
"""Seconds after which a test gives up on a process."""
GPUSCHED = re.compile("GPUSCHED_|RANK$|WORLD_SIZE|MASTER_")
CLASSES = list(corpus.FAMILIES)


def start(*options, rank=0, workers=1):
    plain = {name: value for name, value in os.environ.items() if not GPUSCHED.search(name)}
    return subprocess.Popen(
        [sys.executable, "-m", batch_inference.__name__, *map(str, options)],
        env={**plain, "PYTHONPATH": os.pathsep.join(sys.path), "RANK": str(rank), "WORLD_SIZE": str(workers)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Exit code, output, errors."""
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def predictions(folder):
    lines = "".join(path.read_text() for path in sorted(folder.glob("part-*.jsonl"))).splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(autouse=True)
def _sigterm_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def text():
    return corpus.load(limit=200)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, text):
    """A model of a few seconds' training, as `text_classifier --export` writes it."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.manual_seed(0)
    torch.set_num_threads(1)
    words = corpus.Vocabulary.of(text.training)
    model = TextClassifier(Shape(len(words), len(CLASSES), width=16, layers=1))
    tokens = torch.tensor([words.encode(passage.text) for passage in text.training])
    labels = torch.tensor([passage.label for passage in text.training])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(3):
        for batch in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(tokens[batch]), labels[batch]).backward()
            optimizer.step()
    save_model(path, model.eval(), words, CLASSES)
    return path


@pytest.fixture(scope="module")
def long_text(tmp_path_factory):
    """Text of many lines, so that there is time to interrupt."""
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("".join(f"the socket number {n} sends an email over http\n\n" for n in range(6000)))
    return path


def test_two_workers_share_the_shards_and_report_throughput_latency_and_accuracy(model_file, tmp_path):
    output = tmp_path / "out"
    given = ["--model", model_file, "--output", output, "--shard-size", 100]
    workers = [start(*given, rank=rank, workers=2) for rank in (0, 1)]
    for code, printed, errors in map(finish, workers):
        assert code == 0, errors
        assert re.search(
            r"throughput [\d,]+ passages/s; latency of a batch of 32: p50 [\d.]+ ms, p99 [\d.]+ ms", printed
        )
    records = predictions(output)
    passages = corpus.load().validation
    assert [record["text"] for record in records] == [passage.text for passage in passages]
    assert [record["label"] for record in records] == [CLASSES[passage.label] for passage in passages]
    accuracy = sum(record["prediction"] == record["label"] for record in records) / len(records)
    assert accuracy > 0.35
    code, printed, _ = finish(start(*given))
    assert code == 0
    assert f"worker 0 of 1: 0 of {-(-len(passages) // 100)} shards to do" in printed
    assert f"accuracy {accuracy:.4f}" in printed


def test_a_stopped_run_keeps_whole_shards_and_goes_on_with_the_rest(model_file, long_text, tmp_path):
    output = tmp_path / "out"
    given = ["--model", model_file, "--input", long_text, "--output", output, "--batch-size", 1, "--shard-size", 500]
    process = start(*given)
    deadline = time.monotonic() + PATIENCE
    while not list(output.glob("part-*.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    code, printed, errors = finish(process)
    assert code == 75, errors
    assert "the rest is for the next attempt" in printed
    kept = {path: path.stat().st_mtime_ns for path in output.glob("part-*.jsonl")}
    assert 0 < len(kept) < 12
    assert {len(path.read_text().splitlines()) for path in kept} == {500}
    code, printed, errors = finish(start(*given))
    assert code == 0, errors
    assert f"{12 - len(kept)} of 12 shards to do" in printed
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert [record["source"] for record in predictions(output)] == [f"lines.txt:{n}" for n in range(1, 12000, 2)]
    assert "accuracy" not in printed, "nobody has said what is right"


def test_predictions_of_other_options_are_not_mixed(model_file, long_text, tmp_path):
    given = ["--model", model_file, "--input", long_text, "--output", tmp_path / "out"]
    assert finish(start(*given, "--prune", 0.3))[0] == 0
    code, _, errors = finish(start(*given, "--prune", 0.5))
    assert code == 1
    assert "holds predictions of another model, text or options" in errors
    assert "Traceback" not in errors


def test_quantized_and_pruned_it_still_classifies(model_file, text):
    exact, words, classes = load_model(model_file)
    before = inference.size(exact)
    small = inference.quantized(inference.pruned(load_model(model_file)[0], 0.3))
    assert inference.size(small) < before
    device = torch.device("cpu")
    answers = [
        [
            record["prediction"]
            for record in inference.Classifier(model, words, classes, device).classify(text.validation)
        ]
        for model in (exact, small)
    ]
    agree = sum(one == other for one, other in zip(*answers, strict=True)) / len(text.validation)
    assert agree > 0.8


def test_pruning_sets_the_smallest_weights_to_zero_and_no_others(model_file):
    exact = load_model(model_file)[0]
    pruned = inference.pruned(load_model(model_file)[0], 0.3)
    linear = [name for name, module in exact.named_modules() if isinstance(module, torch.nn.Linear)]
    before = torch.cat([exact.get_submodule(name).weight.flatten() for name in linear])
    after = torch.cat([pruned.get_submodule(name).weight.flatten() for name in linear])
    gone = after == 0
    assert gone.float().mean().item() == pytest.approx(0.3, abs=0.001)
    assert before[gone].abs().max() <= before[~gone].abs().min()
    assert torch.equal(before[~gone], after[~gone])
    assert exact.state_dict().keys() == pruned.state_dict().keys()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _path: None, "No such file"),
        (lambda path: path.write_bytes(b"hello"), "is no model of text_classifier"),
        (lambda path: torch.save({"weights": 1}, path), "is no model of text_classifier"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path, capsys, damage, message):
    path = tmp_path / "model.pt"
    damage(path)
    assert batch_inference.main(["--model", str(path), "--output", str(tmp_path / "out")]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("batch_inference: ")
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "has no text in it"), (b"\n \n", "has no text in it"), (b"\xff\xfe", "is no UTF-8 text")],
)
def test_text_that_cannot_be_classified_is_refused_in_one_line(model_file, tmp_path, capsys, content, message):
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    given = ["--model", str(model_file), "--input", str(path), "--output", str(tmp_path / "out")]
    assert batch_inference.main(given) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "required: --model, --output"),
        (["--prune", "1"], "not from 0 to below 1"),
        (["--prune", "nan"], "not from 0 to below 1"),
        (["--batch-size", "0"], "less than 1"),
        (["--shard-size", "many"], "invalid"),
    ],
)
def test_a_wrong_option_is_named(given, message, capsys):
    with pytest.raises(SystemExit) as left:
        batch_inference.main(given)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_percentiles_are_times_that_occurred():
    timing = inference.Timing()
    for milliseconds in range(100, 0, -1):
        timing.add(milliseconds / 1000, 10)
    assert timing.percentile(50) == 0.05
    assert timing.percentile(99) == 0.099
    assert timing.throughput() == pytest.approx(1000 / 5.05)


def test_the_last_shard_has_the_rest(tmp_path):
    passages = [corpus.Passage(f"passage {n}", 0) for n in range(7)]
    shards = inference.Shards(tmp_path, passages, 3, {})
    assert [shards.missing(rank, 2) for rank in (0, 1)] == [[0, 2], [1]]
    assert [[len(batch) for batch in shards.batches(shard, 2)] for shard in range(3)] == [[2, 1], [2, 1], [1]]


def test_other_text_does_not_go_into_a_folder_of_predictions(tmp_path):
    inference.Shards(tmp_path, [corpus.Passage("tea")], 3, {})
    with pytest.raises(WorkloadError, match="give another --output"):
        inference.Shards(tmp_path, [corpus.Passage("milk")], 3, {})
