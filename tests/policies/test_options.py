"""Options in a policy's name: read by the types of what they are for, and refused in one sentence."""

from __future__ import annotations

import math
from typing import Literal

import pytest

from builders import cluster, job, trace
from gpusched.jobs.errors import GpuschedError, NotFoundError, PolicyError
from gpusched.policies.catalog import CATALOG, load
from gpusched.policies.options import Duration, read
from gpusched.scheduler.simulate import simulate


def make(
    *,
    share: float = 1.0,
    count: int = 1,
    wait: Duration = 0.0,
    limits: tuple[Duration, ...] = (),
    mode: Literal["one", "other"] = "one",
    strict: bool = False,
    by_class: bool = False,
) -> None:
    """All kinds of options."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", {}),
        ("x?share=0.5", {"share": 0.5}),
        ("x?share=inf&count=3", {"share": math.inf, "count": 3}),
        ("x?wait=16h", {"wait": 57_600.0}),
        ("x?limits=90s,1h30m", {"limits": (90.0, 5400.0)}),
        ("x?mode=other&strict=yes", {"mode": "other", "strict": True}),
    ],
)
def test_options_are_read_by_their_types(text, expected):
    assert read(text, make) == expected


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("x?nothing=1", "no option 'nothing'", "one of share, count, wait, limits, mode, strict"),
        ("x?by_class=yes", "no option 'by_class'", "one of share"),
        ("x?share=1&share=2", "share is given twice", "once"),
        ("x?share=much", "share is 'much'", "a number, 0 or more"),
        ("x?share=-1", "share is '-1'", "a number, 0 or more"),
        ("x?share=nan", "share is 'nan'", "a number, 0 or more"),
        ("x?count=1.5", "count is '1.5'", "a whole number"),
        ("x?wait=60", "wait is '60'", "60s for seconds"),
        ("x?limits=1h,", "limits is '1h,'", "write it like 90s"),
        ("x?mode=third", "mode is 'third'", "one of one, other"),
        ("x?strict=maybe", "strict is 'maybe'", "yes or no"),
        ("x?share", "share is ''", "a number"),
    ],
)
def test_what_is_wrong_is_said_with_what_would_do(text, says, hint):
    with pytest.raises(NotFoundError) as caught:
        read(text, make)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_a_policy_with_options_is_called_as_it_was_typed():
    assert load("srtf?margin=60s").name == "srtf?margin=60s"
    assert load("srtf").name == "srtf"


def test_each_part_of_a_composition_has_options_of_its_own():
    asks = [job("8 GPUs for 100 s"), job("8 GPUs for 40 s", at=10)]
    for margin, stopped in ((49, 1), (50, 0)):
        run = simulate(trace(*asks), cluster("1x8"), load(f"srtf?margin={margin}s+count+skip+preempt"))
        assert run.jobs[0].attempt - 1 == stopped


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("srtf?margin=60s+best_fit+skip+kill", "no 'kill'"),
        ("srtf?margins=60s+best_fit+skip+preempt", "no option 'margins'"),
        ("fifo?depth=2", "no option 'depth'"),
        ("tiresias?limits=2h,1h", "have to rise"),
        ("gittins?delta=0s", "above 0"),
        ("las?step=0s+best_fit+skip+preempt", "a step"),
        ("no-such-policy?depth=2", "no-such-policy"),
    ],
)
def test_a_wrong_name_is_refused_with_the_whole_of_it(name, says):
    with pytest.raises(GpuschedError) as caught:
        load(name)
    assert isinstance(caught.value, NotFoundError | PolicyError)
    assert says in caught.value.message
    assert repr(name) in caught.value.message


@pytest.mark.parametrize("name", CATALOG)
def test_no_policy_takes_an_option_that_it_does_not_have(name):
    with pytest.raises(NotFoundError, match="no option 'nonsense'"):
        load(f"{name}?nonsense=1")
