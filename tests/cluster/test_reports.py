"""What the ranks of a gang report, made one and told now and then."""

import asyncio
import json
import time

import pytest

from gpusched.cluster.ray.reports import Reports


def files(step=None, at=None, fraction=None):
    found = {}
    if step is not None:
        found["checkpoint.json"] = json.dumps({"step": step, "time": at})
    if fraction is not None:
        found["progress.json"] = json.dumps({"fraction": fraction})
    return found


def told(play, every=1000.0):
    """What is told of a play, which gets the Reports; (kind, words) in order."""
    said = []

    async def run():
        reports = Reports(lambda kind, words: said.append((kind, words)), every)
        await play(reports)
        reports.close()

    asyncio.run(run())
    return said


def test_the_first_report_is_told_at_once_and_the_next_ones_wait():
    async def play(reports):
        for step in range(1, 100):
            reports.heard(files(step, time.time(), step / 100), time.time())

    said = told(play)
    assert [(kind, words.get("step", words.get("fraction"))) for kind, words in said] == [
        ("checkpointed", 1),
        ("progressed", 0.01),
    ]


def test_after_the_pause_only_the_newest_is_told():
    async def play(reports):
        for step in range(1, 5):
            reports.heard(files(step, time.time()), time.time())
        await asyncio.sleep(0.2)

    assert [words["step"] for _, words in told(play, every=0.05)] == [1, 4]


def test_several_ranks_that_report_one_step_are_one_line():
    async def play(reports):
        for _ in range(4):
            reports.heard(files(8, time.time()), time.time())
            await asyncio.sleep(0.03)

    assert [words["step"] for _, words in told(play, every=0.01)] == [8]


def test_the_clock_of_another_machine_does_not_matter():
    async def play(reports):
        reports.heard(files(8, 5000.0), 5010.0)

    ((_, words),) = told(play)
    assert words["time"] == pytest.approx(time.time() - 10, abs=5)


def test_progress_is_told_in_steps_of_one_in_a_hundred_and_the_end_always():
    async def play(reports):
        for fraction in (0.5, 0.505, 0.4, 0.999, 1.0):
            reports.heard(files(fraction=fraction), time.time())
            await asyncio.sleep(0.03)

    assert [words["fraction"] for _, words in told(play, every=0.01)] == [0.5, 0.999, 1.0]


def test_nonsense_is_not_told():
    async def play(reports):
        reports.heard({"checkpoint.json": "{", "progress.json": '{"fraction": 7}'}, time.time())

    assert told(play) == []
