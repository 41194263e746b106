"""Every end has one meaning, whatever the rules: counts stay within limits, and nothing goes round for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.jobs.causes import PATTERNS, STARTS, Cause, end_of
from gpusched.jobs.events import MOVES, Kind
from gpusched.jobs.job import Job, RetryRule, Rule, Shape, State
from gpusched.jobs.outcome import GOES_ON, MOST_REQUEUES, Verdict, judge

TOKENS = [
    *("failure", "lost", "exit", "exit:1", "exit:3", "exit:137", "signal", "signal:SIGKILL", "signal:SIGSEGV"),
    *("oom", "gpu_oom", "pattern", "start", "node_lost", "log:/a/", "log:/b/"),
    *(f"pattern:{name}" for name in PATTERNS),
    *(f"start:{name}" for name in STARTS),
]
BACKOFFS = st.sampled_from([None, (0.0, 10.0), (7.0, 20.0)])
RULES = st.builds(
    Rule,
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["retry", "retry_elsewhere", "requeue", "fail"]),
    st.sampled_from([None, None, 0, 1, 2]),
    BACKOFFS,
)
RETRIES = st.none() | st.builds(
    RetryRule,
    st.integers(0, 4),
    st.lists(st.sampled_from(TOKENS), max_size=3).map(tuple),
    st.lists(RULES, max_size=4).map(tuple),
    BACKOFFS,
)
ENDS = st.fixed_dictionaries(
    {},
    optional={
        "cause": st.sampled_from([*(cause.value for cause in Cause), "drain", ""]),
        "which": st.sampled_from([*PATTERNS, *STARTS, "SIGKILL", ""]),
        "cause_detail": st.sampled_from(["words", ""]),
        "patterns": st.lists(st.sampled_from([*PATTERNS, "unheard-of"]), max_size=3),
        "matched": st.lists(st.integers(-2, 5), max_size=3),
        "signal": st.sampled_from([None, 9, 11]),
        "message": st.just("it went wrong"),
        "checkpoint": st.just({"step": 3, "time": 1.0}),
        "kept": st.sampled_from([0, 5.0]),
        "failed_rank": st.sampled_from([None, 0]),
    },
)
CODES = st.sampled_from([0, 1, 3, 75, 126, 127, 137, 139, 143, 255])
KINDS = st.sampled_from([Kind.FINISHED, Kind.VANISHED])


def made(retry: RetryRule | None, state: State = State.RUNNING) -> Job:
    job = Job(1, Shape(1, 1), 0.0, state=state)
    job.retry = retry
    job.stop_cause = Kind.CANCELLED
    return job


def taken(job: Job, verdict: Verdict) -> None:
    """What the engine makes of a verdict."""
    job.tried = job.tried if verdict.tried is None else verdict.tried
    job.failures += verdict.kind is Kind.RETRIED


@given(RETRIES, KINDS, CODES, ENDS, st.sampled_from(list(MOVES)))
def test_every_end_in_every_state_has_one_meaning_that_the_table_of_moves_knows(retry, kind, code, data, state):
    if state not in {State.STARTING, State.RUNNING, State.PREEMPTING, State.STOPPING}:
        return
    told = {**data, "exit_code": code} if kind is Kind.FINISHED else data
    verdict = judge(made(retry, state), kind, told)
    assert verdict.kind in MOVES[state]
    assert verdict == judge(made(retry, state), kind, told)
    assert verdict.pause >= 0
    if verdict.elsewhere or verdict.pause or verdict.tried:
        assert verdict.kind in GOES_ON
    if kind is Kind.FINISHED and code == 0 and state is not State.STOPPING:
        assert verdict.kind is Kind.SUCCEEDED
    if kind is Kind.FINISHED and code == 75 and state is not State.STOPPING:
        assert verdict.kind is Kind.REQUEUED
    if retry is None and state is State.RUNNING:
        assert verdict.kind is not Kind.RETRIED


@given(KINDS, CODES.filter(bool), ENDS)
def test_every_end_that_is_no_success_has_a_cause_in_words(kind, code, data):
    told = {**data, "exit_code": code} if kind is Kind.FINISHED else data
    end = end_of(kind, told, RetryRule(1, ("log:/a/",)))
    assert end.cause.partition(":")[0] in set(Cause)
    assert end.cause in end.tokens
    assert ("failure" if kind is Kind.FINISHED else "lost") in end.tokens
    assert end.detail


@settings(max_examples=200)
@given(RETRIES, st.lists(st.tuples(KINDS, CODES.filter(lambda code: code not in {0, 75}), ENDS), min_size=1))
def test_whatever_fails_again_and_again_comes_to_an_end_within_its_limits(retry, ends):
    """No attempt gets any further; one that asked for it by exit code 75 is its own affair."""
    job = made(retry)
    attempts = 0
    while True:
        kind, code, data = ends[attempts % len(ends)]
        told = {key: value for key, value in data.items() if key not in {"kept", "checkpoint"}}
        verdict = judge(job, kind, {**told, "exit_code": code} if kind is Kind.FINISHED else told)
        attempts += 1
        if verdict.kind not in GOES_ON:
            break
        taken(job, verdict)
        limit = 0 if retry is None else retry.limit
        assert job.failures <= limit
        assert attempts <= 1 + limit + MOST_REQUEUES
    if retry is not None:
        for number, rule in enumerate(retry.rules):
            if rule.limit is not None and rule.do in {"retry", "retry_elsewhere"}:
                assert job.tried.of_rule(number) <= rule.limit


@given(st.integers(1, 40))
def test_a_requeue_that_gets_further_each_time_may_go_on(steps):
    job = made(RetryRule(0, (), (Rule(("oom",), "requeue"),)))
    for step in range(1, steps + 1):
        data = {"exit_code": 1, "cause": "oom", "checkpoint": {"step": step, "time": 1.0}}
        verdict = judge(job, Kind.FINISHED, data)
        assert verdict.kind is Kind.REQUEUED
        taken(job, verdict)
    data = {"exit_code": 1, "cause": "oom", "checkpoint": {"step": steps, "time": 2.0}}
    left = 0
    while (verdict := judge(job, Kind.FINISHED, data)).kind is Kind.REQUEUED:
        taken(job, verdict)
        left += 1
    assert (left, verdict.kind) == (MOST_REQUEUES, Kind.FAILED)


def test_the_first_rule_that_names_the_cause_decides():
    rules = (Rule(("pattern:nccl",), "fail"), Rule(("exit:1",), "retry_elsewhere"))
    job = made(RetryRule(3, ("failure",), rules))
    one = judge(job, Kind.FINISHED, {"exit_code": 1, "cause": "pattern", "which": "nccl", "patterns": ["nccl"]})
    two = judge(job, Kind.FINISHED, {"exit_code": 1, "cause": "exit"})
    three = judge(job, Kind.FINISHED, {"exit_code": 2, "cause": "exit"})
    assert [(found.kind, found.elsewhere) for found in (one, two, three)] == [
        (Kind.FAILED, False),
        (Kind.RETRIED, True),
        (Kind.RETRIED, False),
    ]


def test_what_the_platform_is_to_blame_for_counts_nothing_by_default_but_not_for_ever():
    lost = {"message": "node n1 is gone", "cause": "node_lost"}
    unset = {"exit_code": 126, "cause": "start", "which": "node"}
    for kind, data, retry, elsewhere in (
        (Kind.VANISHED, lost, RetryRule(2, ("lost",)), False),
        (Kind.FINISHED, unset, RetryRule(2, ("lost",)), True),
    ):
        job = made(retry)
        kinds = []
        while (verdict := judge(job, kind, data)).kind in GOES_ON:
            assert verdict.elsewhere is elsewhere
            kinds.append(verdict.kind)
            taken(job, verdict)
        assert kinds == [Kind.REQUEUED] * MOST_REQUEUES + [Kind.RETRIED] * 2
    assert judge(made(RetryRule(0, ("lost",))), Kind.VANISHED, lost).kind is Kind.LOST
    assert judge(made(RetryRule(3, ("failure",))), Kind.VANISHED, lost).kind is Kind.LOST


def test_pauses_grow_from_the_first_to_the_most_and_a_rules_own_come_first():
    pauses = []
    rule = Rule(("oom",), "retry", None, (2.0, 9.0))
    for failures in range(5):
        job = made(RetryRule(9, ("failure",), (rule,), (100.0, 400.0)))
        job.failures = failures
        own = judge(job, Kind.FINISHED, {"exit_code": 1, "cause": "oom"}).pause
        pauses.append((own, judge(job, Kind.FINISHED, {"exit_code": 1}).pause))
    assert pauses == [(2, 100), (4, 200), (8, 400), (9, 400), (9, 400)]
