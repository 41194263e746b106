"""The `retry` of a job file: rules by cause, what is wrong with them in words, and what older jobs said."""

import json

import pytest

from gpusched.jobs.causes import PATTERNS, log_patterns
from gpusched.jobs.errors import SpecError
from gpusched.jobs.job import RetryRule, Rule
from gpusched.jobs.spec import JobSpec, read_jobs

FILE = """\
run: x
retry:
  limit: 5
  rules:
  - {on: exit:3, do: fail}
  - {on: oom, do: retry_elsewhere, limit: 2}
  - {on: "log:/CUDA error: uncorrectable ECC/", do: retry_elsewhere}
  - {on: [signal:SEGV, pattern:nccl], do: retry, backoff: {first: 1m}}
  - on: node_lost
    do: requeue
  backoff: {first: 10s, most: 2m}
"""


def test_rules_are_read_as_they_are_written():
    (spec,) = read_jobs(FILE, file="f.yaml")
    assert spec.retry.rule() == RetryRule(
        5,
        ("failure", "lost"),
        (
            Rule(("exit:3",), "fail"),
            Rule(("oom",), "retry_elsewhere", 2),
            Rule(("log:/CUDA error: uncorrectable ECC/",), "retry_elsewhere"),
            Rule(("signal:SIGSEGV", "pattern:nccl"), "retry", None, (60.0, 300.0)),
            Rule(("node_lost",), "requeue"),
        ),
        (10.0, 120.0),
    )
    assert log_patterns(spec.retry) == ("CUDA error: uncorrectable ECC",)
    assert read_jobs(spec.to_yaml(), file="g.yaml") == [spec]
    assert JobSpec.from_store(spec.to_store()) == spec


def test_a_job_without_rules_is_stored_as_it_always_was():
    (spec,) = read_jobs("run: x\nretry: {limit: 2, on: [lost]}\n", file="f.yaml")
    assert json.loads(spec.to_store())["retry"] == {"limit": 2, "on": ["lost"]}
    assert spec.retry.rule() == RetryRule(2, ("lost",))


def test_every_built_in_pattern_may_be_named():
    for name in PATTERNS:
        (spec,) = read_jobs(f"run: x\nretry: {{on: pattern:{name}}}\n", file="f.yaml")
        assert spec.retry.on == (f"pattern:{name}",)


WRONG = {
    "{rules: 3}": (16, "retry.rules", "must be a list, not 3", "- {on: exit:3, do: fail}"),
    "{rules: [3]}": (17, "retry.rules[0]", "must be a mapping", "{on: exit:3, do: fail}"),
    "{rules: [{on: oom}]}": (17, "retry.rules[0].do", "is required", ""),
    "{rules: [{do: fail}]}": (17, "retry.rules[0].on", "is required", ""),
    "{rules: [{on: [], do: fail}]}": (22, "retry.rules[0].on", "names no cause", "on: exit:3"),
    "{rules: [{on: ooom, do: fail}]}": (22, "retry.rules[0].on[0]", "not ooom", "oom"),
    "{rules: [{on: nccl, do: fail}]}": (22, "retry.rules[0].on[0]", "not nccl", "write pattern:nccl"),
    "{rules: [{on: sigsegv, do: fail}]}": (22, "retry.rules[0].on[0]", "not sigsegv", "write signal:SIGSEGV"),
    "{rules: [{on: signal:FOO, do: fail}]}": (22, "retry.rules[0].on[0]", "names no signal", "signal:SIGSEGV"),
    "{rules: [{on: pattern:foo, do: fail}]}": (22, "retry.rules[0].on[0]", "not pattern:foo", "pattern:xid"),
    "{rules: [{on: start:up, do: fail}]}": (22, "retry.rules[0].on[0]", "not start:up", "start:setup"),
    "{rules: [{on: oom, do: retri}]}": (31, "retry.rules[0].do", "not retri", "did you mean `retry`?"),
    "{rules: [{on: 'log:/(/', do: fail}]}": (22, "retry.rules[0].on[0]", "is no regular expression", "escape"),
    "{rules: [{on: 'log:/x', do: fail}]}": (22, "retry.rules[0].on[0]", "is no pattern", "log:/CUDA"),
    "{rules: [{on: 'log:/.*/', do: fail}]}": (22, "retry.rules[0].on[0]", "matches every line", "name the words"),
    "{rules: [{on: 'log:/" + "a" * 201 + "/', do: fail}]}": (22, "retry.rules[0].on[0]", "201 characters long", ""),
    "{rules: [{on: oom, do: retry, limit: 9}]}": (45, "retry.rules[0].limit", "limit of all retries (3)", "raise"),
    "{rules: [{on: oom, do: retry, limits: 9}]}": (38, "retry.rules[0].limits", "unknown key", "`limit`"),
    "{rules: [{on: oom, do: retry, backoff: {frist: 3s}}]}": (48, "retry.rules[0].backoff.frist", "unknown", "`first`"),
    "{backoff: {first: 10m}}": (26, "retry.backoff.first", "is longer than `most` (5m)", "most: 10m"),
    "{backoff: 10s}": (18, "retry.backoff", "must be a mapping", "first: 10s"),
    "{rules: [" + "{on: oom, do: fail}, " * 21 + "]}": (16, "retry.rules", "has 21 rules; at most 20", ""),
    "{on: [" + ", ".join(f"'log:/x{n}/'" for n in range(21)) + "]}": (8, "retry", "has 21 patterns; at most 20", "|"),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:40])
def test_what_is_wrong_is_told_where_it_stands(text):
    column, key, message, hint = WRONG[text]
    with pytest.raises(SpecError) as raised:
        read_jobs(f"run: x\nretry: {text}\n", file="f.yaml")
    (problem,) = raised.value.problems
    assert (problem.line, problem.column, problem.key) == (2, column, key)
    assert message in problem.message
    assert hint in problem.hint
