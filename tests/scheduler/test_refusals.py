"""Refused requests on their way into the audit trail: all counted, few written."""

from hypothesis import given
from hypothesis import strategies as st

from gpusched.scheduler.access.refusals import BURST, MOST_KINDS, PER_SECOND, Refusals


def line(number):
    return {"user": f"u{number}", "verb": "cancel", "outcome": "not_allowed"}


def test_the_same_refusal_is_one_line_with_a_count_and_its_first_time():
    refusals = Refusals(0.0)
    for second in range(1000):
        refusals.add(line(1), 50.0 + second)
    assert refusals.due(1.0) == [(50.0, {**line(1), "count": 1000})]
    assert refusals.due(2.0) == []


def test_a_flood_of_different_refusals_is_summed_up_and_the_disk_does_not_fill():
    refusals, written, counted = Refusals(0.0), 0, 0
    for turn in range(1000):  # 5,000 seconds of a flood with 2,000 different callers a turn
        for number in range(2000):
            refusals.add(line(turn * 2000 + number), 0.0)
        lines = refusals.due(turn * 5.0)
        written += len(lines)
        counted += sum(one["count"] for _, one in lines)
    assert written <= BURST + 5000 * PER_SECOND + 1
    counted += sum(one["count"] for _, one in refusals.due(1e6))
    assert counted == 2_000_000, "nobody is forgotten, only summed up"
    assert len(refusals._kinds) <= MOST_KINDS


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 5), st.floats(0, 60)), max_size=60))
def test_whatever_is_refused_is_counted_once(flood):
    refusals, now, added, counted = Refusals(0.0), 0.0, 0, 0
    for kind, count, pause in flood:
        refusals.add(line(kind), now, count)
        added += count
        now += pause
        counted += sum(one["count"] for _, one in refusals.due(now))
    counted += sum(one["count"] for _, one in refusals.due(now + 1e6))
    counted += sum(one["count"] for _, one in refusals.due(now + 2e6))
    assert counted == added
