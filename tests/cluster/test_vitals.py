"""What the gateway makes of what the nodes say: no Ray, no clock of its own."""

import pytest

from gpusched.cluster.health import HealthLimits
from gpusched.cluster.ray.vitals import Ward

LIMITS = HealthLimits(patience=10, silent=60, skew=5).plain()
WELL = None


def nobody(_node, _index):
    return False


def ill(*node, gpus=None, dirt=None):
    return {"node": list(node), "gpus": gpus or {}, "dirt": dirt or {}}


@pytest.fixture
def ward():
    one = Ward(LIMITS)
    one.follow(["a", "b", "c"], 0.0)
    return one


def test_a_node_that_is_well_says_nothing(ward):
    ward.sampled("a", WELL, nobody, 1.0)
    assert (ward.why("a", 2.0), ward.fenced("a")) == ("", {})


def test_what_the_agent_says_of_the_machine_is_the_reason(ward):
    ward.sampled("a", ill("disk full", "memory is short"), nobody, 1.0)
    assert ward.why("a", 2.0) == "unhealthy: disk full; memory is short"
    ward.sampled("a", WELL, nobody, 6.0)
    assert ward.why("a", 7.0) == ""


def test_an_agent_that_does_not_answer_makes_its_node_unhealthy_until_it_does(ward):
    assert ward.why("a", 60.0) == "", "it may still be starting"
    assert ward.why("a", 61.0) == "unhealthy: its agent has not answered for 60 s"
    ward.sampled("a", WELL, nobody, 61.5)
    assert ward.why("a", 121.0) == ""
    assert ward.why("a", 122.0) == "unhealthy: its agent has not answered for 60 s"


def test_a_broken_gpu_is_fenced_at_once_and_alone(ward):
    ward.sampled("a", ill(gpus={"3": "GPU lost"}), nobody, 1.0)
    assert ward.fenced("a") == {3: "GPU lost"}
    assert ward.why("a", 2.0) == "", "its other GPUs go on"
    assert ward.fenced("b") == {}


def test_something_on_an_idle_gpu_fences_it_after_the_patience_and_not_for_a_moment(ward):
    soiled = ill(dirt={"1": "process 7 (python) is on it"})
    ward.sampled("a", soiled, nobody, 1.0)
    assert ward.fenced("a") == {}
    ward.sampled("a", WELL, nobody, 6.0)
    for now in (9.0, 14.0):
        ward.sampled("a", soiled, nobody, now)
    assert ward.fenced("a") == {}, "it began anew"
    ward.sampled("a", soiled, nobody, 19.0)
    assert ward.fenced("a") == {1: "process 7 (python) is on it"}


def test_what_is_on_the_gpu_of_an_attempt_is_its_own(ward):
    for now in range(0, 60, 5):
        ward.sampled("a", ill(dirt={"1": "x"}), lambda node, index: (node, index) == ("a", 1), float(now))
    assert ward.fenced("a") == {}


def test_a_broken_gpu_that_an_attempt_holds_is_fenced_when_it_ends(ward):
    ward.sampled("a", ill(gpus={"1": "Xid 79"}), lambda _node, _index: True, 1.0)
    assert ward.fenced("a") == {}
    ward.sampled("a", ill(gpus={"1": "Xid 79"}), nobody, 6.0)
    assert ward.fenced("a") == {1: "Xid 79"}


def test_a_fence_comes_down_when_two_samples_in_a_row_see_nothing(ward):
    ward.fence("a", 0, "process 9 is on it")
    ward.sampled("a", WELL, nobody, 1.0)
    ward.sampled("a", ill(dirt={"0": "process 9 is on it"}), nobody, 2.0)
    ward.sampled("a", WELL, nobody, 3.0)
    assert 0 in ward.fenced("a")
    ward.sampled("a", WELL, nobody, 4.0)
    assert ward.fenced("a") == {}


def test_the_fence_that_an_ending_attempt_leaves_stays_while_it_still_holds_the_gpu(ward):
    ward.fence("a", 0, "process 9 is on it")
    for now in (1.0, 2.0, 3.0):
        ward.sampled("a", ill(dirt={"0": "process 9 is on it"}), lambda _node, _index: True, now)
    assert 0 in ward.fenced("a")


def test_forgiven_gpus_are_given_back_and_what_still_shows_is_fenced_again(ward):
    ward.sampled("a", ill(gpus={"3": "GPU lost"}), nobody, 1.0)
    ward.forgive("a")
    assert ward.fenced("a") == {}
    ward.sampled("a", ill(gpus={"3": "GPU lost"}), nobody, 6.0)
    assert ward.fenced("a") == {3: "GPU lost"}


def test_a_node_that_left_is_forgotten(ward):
    ward.fence("a", 0, "x")
    ward.follow(["b"], 1.0)
    ward.follow(["a", "b"], 2.0)
    assert ward.fenced("a") == {}
    ward.sampled("gone", WELL, nobody, 3.0)
    ward.fence("gone", 0, "x")
    assert ward.fenced("gone") == {}


# ---- clocks


def tell(ward, node, skew, trip=0.01):
    ward.told_time(node, 1000.0 + trip / 2 + skew, 1000.0, 1000.0 + trip)


@pytest.mark.parametrize(("skew", "word"), [(6.0, "ahead of"), (-6.0, "behind")])
def test_a_clock_that_is_off_twice_in_a_row_makes_its_node_unhealthy(ward, skew, word):
    tell(ward, "a", skew)
    assert ward.why("a", 1.0) == ""
    tell(ward, "a", skew)
    assert ward.why("a", 1.0) == f"unhealthy: its clock is over 5 s {word} the control plane's"
    tell(ward, "a", skew * 0.75)
    assert ward.why("a", 1.0) != "", "4.5 s are not clearly right"
    tell(ward, "a", 0.1)
    assert ward.why("a", 1.0) == ""


def test_a_slow_answer_is_no_wrong_clock(ward):
    for _ in range(3):
        tell(ward, "a", 6.0, trip=4.0)  # the answer may have taken all of the 4 s
    assert ward.why("a", 1.0) == ""


def test_when_all_nodes_agree_on_another_time_the_fault_is_with_us(ward):
    for node in "abc":
        ward.sampled(node, WELL, nobody, 0.5)
        for _ in range(2):
            tell(ward, node, 3600.0)
    assert [ward.why(node, 1.0) for node in "abc"] == ["", "", ""]
    for _ in range(2):
        tell(ward, "c", 0.0)
        tell(ward, "b", 0.0)
    assert ward.why("a", 1.0) != ""
    assert ward.why("b", 1.0) == ""


def test_a_limit_of_zero_is_no_check():
    ward = Ward(HealthLimits(skew=0, silent=0).plain())
    ward.follow(["a"], 0.0)
    for _ in range(3):
        tell(ward, "a", 1e6)
    assert ward.why("a", 1e6) == ""
