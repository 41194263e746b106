"""The example job files: valid, and asking for what they say."""

import shlex
from pathlib import Path

import pytest

from gpusched.jobs import workloads
from gpusched.jobs.spec import read_job_file, read_jobs

EXAMPLES = Path(__file__).parents[2] / "jobs" / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


def test_all_examples_are_there():
    assert {path.stem for path in FILES} == {
        "batch-inference",
        "fraction",
        "hello",
        "ray-train",
        "text-classifier",
        "text-classifier-torchrun",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_one_valid_job_that_is_explained(path):
    text = path.read_text()
    [job] = read_jobs(text, file=path.name)
    assert text.startswith("#")
    assert f"jobs/examples/{path.name}" in text
    assert job.workdir is None, "an example runs from wherever it is submitted"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_runs_a_workload_that_exists(path):
    [job] = read_job_file(path)
    modules = [word for word in shlex.split(job.run, comments=True) if word.startswith("gpusched.")]
    for module in modules:
        assert module.startswith(f"{workloads.__name__}.")
        assert (Path(workloads.__path__[0]) / f"{module.rsplit('.', 1)[1]}.py").is_file()
    assert modules or path.stem in {"hello", "fraction"}


def test_the_main_example_is_a_gang_of_two_workers_with_a_gpu_each():
    [job] = read_job_file(EXAMPLES / "text-classifier.yaml")
    shape = job.shape()
    assert (shape.num_nodes, shape.gpus, shape.distinct) == (2, 1, False)
    assert job.checkpoint.dir is None


def test_inference_reads_the_model_that_training_exports():
    [training] = read_job_file(EXAMPLES / "text-classifier.yaml")
    [inference] = read_job_file(EXAMPLES / "batch-inference.yaml")
    exported = _value(training.run, "--export")
    assert exported.startswith("~/")
    assert _value(inference.run, "--model") == exported


def test_the_fraction_is_of_one_shared_gpu():
    [job] = read_job_file(EXAMPLES / "fraction.yaml")
    assert (job.shape().gpus, job.shape().gpu_milli) == (0, 500)


def _value(command, option):
    words = shlex.split(command, comments=True)
    return words[words.index(option) + 1]
