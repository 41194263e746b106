"""The file that says what a simulated cluster costs: what it may say, and how it is told what it may not."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import pytest

from builders import cluster, job, trace
from gpusched.cluster.profile import (
    NEVER,
    ZERO,
    Checkpoints,
    Failures,
    NodeLife,
    Overruns,
    Place,
    Profile,
    Rates,
    at,
    read_profile,
)
from gpusched.cluster.profile_file import KEYS, read_text
from gpusched.jobs.errors import SpecError
from gpusched.jobs.job import FINAL
from gpusched.policies.catalog import load
from gpusched.scheduler.simulate import simulate

PAGE = Path(__file__).parents[2] / "docs" / "profile.md"


def example() -> str:
    """The file that the page shows."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return text


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read_text(text, "p.yaml")
    return [str(problem) for problem in caught.value.problems]


# What it says -----------------------------------------------------------------------------------------------------


def test_the_example_of_the_page_says_what_it_says():
    profile = read_text(example())
    assert profile == Profile(
        start_up=((1, 20), (64, 90)),
        restore=45,
        grace=30,
        checkpoints=Checkpoints(1800, 20, before_stop=True),
        rates=Rates({"H100": 1, "A100": 0.45, "default": 0.3}, ((2, 0.95), (4, 0.9)), ((2, 0.8),)),
        rates_by_model={
            "vgg19": Rates({"H100": 1, "A100": 0.45, "default": 0.3}, ((2, 0.6),), ((2, 0.8),)),
        },
        failures=Failures(
            NodeLife(60 * 86400, 4 * 3600),
            {"A100": NodeLife(20 * 86400, 4 * 3600)},
            mtbf=((64, 7 * 86400),),
            probability=0.02,
            retries=5,
        ),
        overruns=Overruns(0.01, 3),
        estimates_are_limits=True,
    )
    assert profile.description == "40 nodes of two generations, as measured in May"


def test_the_example_of_the_page_runs():
    asks = [job("2x8 GPUs for 7000 s, estimate 20000 s", at=600 * number) for number in range(20)]
    nodes = cluster("2x8:H100@rack=a 2x8:A100@rack=b")
    run = simulate(trace(*asks), nodes, load("binpack"), profile=read_text(example()), seed=1)
    assert all(one.state in FINAL for one in run.jobs)


def test_every_key_is_on_the_page():
    rows = re.findall(r"^\| `([\w.]+)`", PAGE.read_text("utf-8"), re.MULTILINE)
    sections = set(KEYS) - {""}
    leaves = {f"{path}.{key}".lstrip(".") for path, keys in KEYS.items() for key in keys if "*" not in path}
    leaves -= sections - {"checkpoint"} | {"rate.models", "failures.nodes.by_type"}
    assert set(rows) == leaves | {"rate.models.NAME", "failures.nodes.by_type.TYPE"}


def test_a_file_is_read(tmp_path):
    file = tmp_path / "costs.yaml"
    file.write_text("start_up: 30s\n")
    profile = read_profile(file)
    assert profile == Profile(start_up=30)
    assert profile.places == {"start_up": Place(str(file), 1, 1)}


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "{}", "rate:\nfailures: {}\n", "start_up: 0s", "grace: 0"]
)
def test_a_file_that_says_nothing_costs_nothing(text):
    assert read_text(text) == ZERO


def test_whole_numbers_stay_whole():
    profile = read_text("start_up: 1m\nrestore: 1.5s\ngrace: {1: 2s}\nrate: {by_type: {A: 1.0}}")
    assert [type(one) for one in (profile.start_up, profile.restore, profile.grace[0][1])] == [int, float, int]
    assert type(profile.rates.of_type("A")) is int


def test_no_checkpoint_but_the_one_before_a_stop():
    profile = read_text("grace: 5s\ncheckpoint: {interval: never, cost: 5s, before_stop: true}")
    assert profile.checkpoints == Checkpoints(NEVER, 5, before_stop=True)


def test_steps_hold_from_their_size_on_and_nothing_holds_below_the_first():
    steps = read_text("start_up: {64: 90s, 8: 20s}").start_up
    assert [at(steps, gpus) for gpus in (0.5, 7, 8, 63, 64, 1000)] == [0, 0, 20, 20, 90, 90]
    assert at(steps, 1, None) is None
    assert at(30, 1) == 30


def test_a_model_differs_in_what_it_names():
    profile = read_text("rate: {by_type: {A: 0.5}, by_nodes: {2: 0.9}, models: {m: {by_nodes: {2: 0.1}}, same: }}")
    assert profile.rates_by_model == {"m": Rates({"A": 0.5}, ((2, 0.1),)), "same": profile.rates}


def test_letter_case_of_gpu_types_does_not_matter():
    profile = read_text("rate: {by_type: {h100: 0.5}}\nfailures: {nodes: {by_type: {H100: {mtbf: 1d}}}}")
    (node,) = cluster("1x8:H100")
    assert (profile.rates.of_type("H100"), profile.failures.life(node).mtbf) == (0.5, 86400)
    profile.check([node], [job("1 h100 GPU").shape])


def test_retries_are_for_those_that_can_fail():
    assert ZERO.retry is None
    assert read_text("start_up: 3s").retry is None
    rule = read_text("failures: {retries: 7, jobs: {probability: 0.1}}").retry
    assert rule is not None
    assert (rule.limit, set(rule.on)) == (7, {"failure", "lost"})


def test_the_best_rate_on_each_type_is_what_a_bound_must_allow():
    text = (
        "rate: {by_type: {A: 0.5, default: 2}, by_nodes: {2: 0.9}, models: {m: {by_type: {A: 3}, by_racks: {2: 1.5}}}}"
    )
    nodes = cluster("1x8:A 1x8:B 1x0:C")
    assert read_text(text).best_rates(nodes) == {"A": 4.5, "B": 2}
    assert read_text("rate: {by_type: {A: 1, B: 1}, by_nodes: {2: 0.9}}").best_rates(nodes) == {}
    assert read_text("rate: {by_type: {A: 0.5, B: 1}}").best_rates(nodes) == {"A": 0.5, "B": 1}


def test_it_travels_to_other_processes():
    profile = read_text(example())
    assert pickle.loads(pickle.dumps(profile)) == profile == copy.deepcopy(profile)  # noqa: S301 - our own bytes


# What it may not say ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("startup: 20s", "p.yaml:1:1: startup: unknown key (did you mean `start_up`?)"),
        ("restor: 20s", "p.yaml:1:1: restor: unknown key (did you mean `restore`?)"),
        ("mtbf: 3d", "p.yaml:1:1: mtbf: unknown key (did you mean `failures.nodes.mtbf`?)"),
        ("rate: {speed: 1}", "p.yaml:1:8: rate.speed: unknown key (did you mean `rate.by_type`?)"),
        (
            "failures: {jobs: {xyz: 1}}",
            "p.yaml:1:19: failures.jobs.xyz: unknown key (known here: mtbf, probability)",
        ),
        (
            "start_up: 20",
            "p.yaml:1:11: start_up: 20 has no unit (write 20s for seconds, 20m for minutes or 20h for hours)",
        ),
        (
            "start_up: {8: 20}",
            "p.yaml:1:15: start_up.8: 20 has no unit (write 20s for seconds, 20m for minutes or 20h for hours)",
        ),
        (
            "start_up: {many: 20s}",
            "p.yaml:1:12: start_up.many: is no size (the keys are whole numbers from 1, such as `{1: ..., 8: ...}`)",
        ),
        ("start_up: {}", "p.yaml:1:11: start_up: has no steps (give one number, or `{1: ..., 8: ...}`)"),
        ("grace: [1s]", "p.yaml:1:8: grace: is one value, not a list"),
        (
            "grace: -3s",
            "p.yaml:1:8: grace: -3s is negative (write it like 90s, 15m, 2h, 3d, 1h30m or D-HH:MM:SS)",
        ),
        (
            "checkpoint: {cost: 20s}",
            (
                "p.yaml:1:13: checkpoint: does not say how often "
                "(add `interval: 30m`, or `interval: never`; without `checkpoint` no work is ever lost)"
            ),
        ),
        (
            "checkpoint: {interval: 0s}",
            (
                "p.yaml:1:24: checkpoint.interval: must be longer than nothing "
                "(leave `checkpoint` out where no work is ever lost)"
            ),
        ),
        (
            "checkpoint: {interval: 1h, cost: 20s, before_stop: true}\ngrace: 5s",
            (
                "p.yaml:1:52: checkpoint.before_stop: a job takes 20 s to save and has 5 s of grace: it would never "
                "be done (give it a grace of at least the cost)"
            ),
        ),
        (
            "checkpoint: {interval: 1h, cost: {64: 1m}, before_stop: true}\ngrace: 30s",
            (
                "p.yaml:1:57: checkpoint.before_stop: a job of 64 GPUs or more takes 60 s to save and has 30 s of "
                "grace: it would never be done (give it a grace of at least the cost)"
            ),
        ),
        ("checkpoint: {interval: 1h, before_stop: yes}", "must be true or false, not `yes`"),
        ("rate: {by_type: {A: 0}}", "p.yaml:1:21: rate.by_type.A: must be above 0 and at most 1000, not 0"),
        ("rate: {by_type: [A]}", "p.yaml:1:17: rate.by_type: is a mapping of names, not a list"),
        ("rate: {by_nodes: 0.9}", "rate.by_nodes: is no mapping of numbers to factors, but `0.9` (write `{2: 0.9}`)"),
        ("failures: {jobs: {probability: 5%}}", "must be a number, not `5%` (write 0.05)"),
        ("failures: {jobs: {probability: 5}}", "must be from 0 to 1, not 5 (0.05 is 5 %)"),
        ("failures: {jobs: {mtbf: 0s}}", "must be longer than nothing (leave the key out for never)"),
        ("failures: {retries: 2.5}", "must be a whole number from 0 to 1,000, not 2.5"),
        ("failures: {nodes: {repair: 4h}}", "failures.nodes.repair: is never needed: no node fails (add `mtbf: 60d`)"),
        ("overruns: {factor: 3}", "p.yaml:1:11: overruns: needs `probability` too"),
        ("overruns: {probability: 1, factor: 0.5}", "must be from 1 to 1000, not 0.5"),
        ("limits: estimate", "p.yaml:1:9: limits: must be trace or estimates, not `estimate`"),
        ("- start_up", "p.yaml:1:1: a profile is a mapping of keys, not a list"),
        ("{}\n---\n{}", "begins a second document (a profile is one document)"),
        ("rate: {by_type: {A: 1}", "this `{` is not closed"),
        ("start_up: 1s\nstart_up: 2s", "start_up: is given twice; the first is in line 1"),
    ],
)
def test_each_fault_is_named_with_its_place_and_its_mend(text, said):
    (found,) = problems(text)
    assert said in found


def test_all_faults_are_told_at_once_in_the_order_of_the_file():
    found = problems("limits: x\nstart_up: 1\nfailures:\n  jobs: {mtbf: x}\n  node: 1\n")
    assert [one.split(" ")[0] for one in found] == ["p.yaml:1:9:", "p.yaml:2:11:", "p.yaml:4:16:", "p.yaml:5:3:"]


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        read_profile(tmp_path / "none.yaml")
