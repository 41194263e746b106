"""When the gateway gives GPUs back: what a real agent sees of real processes, on a node whose GPUs are numbers only."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from gpusched.cluster.health import HealthLimits
from gpusched.cluster.ray.fences import Fences
from gpusched.cluster.ray.keeper import Keeper
from gpusched.cluster.ray.node_agent import NodeAgent

LIMITS = HealthLimits(patience=0.4, disk=0, inodes=0, memory=0, stall=0).plain()
NODE = "node-id"


class Nodes:
    """Asks one agent in this process, as `nodes.Agents` asks those of a cluster. `silent`: it does not answer."""

    def __init__(self, folder):
        self.folder = folder
        self.agent = NodeAgent("n1", str(folder), LIMITS)
        self.silent = False
        self.told = 0
        self.others = {}
        self.keeper = Keeper("me", LIMITS, self, Fences(None), self.others.items, self.tell)
        self.keeper.follow({NODE})
        self.keeper.judging = True

    async def ask(self, _node_id, method, *args, within=10.0):  # noqa: ARG002 - as the real one
        return [] if self.silent else [getattr(self.agent, method)(*args)]

    def tell(self):
        self.told += 1

    def sample(self):
        self.keeper.sampled(NODE, self.agent.sample())

    def end(self, *gpus, stuck=()):
        """Attempt (7, 1) has ended; what is dirty after it."""
        return asyncio.run(self.keeper.seen_gone((7, 1), {NODE: set(gpus)}, {NODE: set(stuck)}))

    def facts(self):
        facts = self.keeper.facts(NODE, {"name": "n1", "gpus": 4})
        return facts["gpus"], [index for index, _why in facts["fenced"]]


@pytest.fixture
def nodes(tmp_path):
    return Nodes(tmp_path)


@pytest.fixture
def process():
    started = []

    def start(**env):
        command = [sys.executable, "-c", "import os, time; os.setsid(); print('up', flush=True); time.sleep(1000)"]
        env = {**os.environ, **env}
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "up\n"
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()


def test_gpus_of_an_attempt_that_is_gone_are_given_back_at_once(nodes):
    assert nodes.end(0, 1) == {}
    assert nodes.facts() == (4, [])


def test_what_escaped_the_supervisor_is_killed_by_its_mark_before_the_gpus_are_given_back(nodes, process):
    escaped = process(GPUSCHED_TAG="me:7:1:0")
    others = process(GPUSCHED_TAG="me:7:11:0"), process(GPUSCHED_TAG="you:7:1:0")
    assert nodes.end(0) == {}
    assert escaped.wait(1) == -9
    assert [one.poll() for one in others] == [None, None]


def test_gpus_of_a_process_that_cannot_be_killed_are_fenced_until_it_is_gone(nodes, process):
    stuck = process()
    why = f"process {stuck.pid} of an ended attempt cannot be killed"
    assert nodes.end(1, 2, stuck=[stuck.pid]) == {NODE: {1: why, 2: why}}
    assert nodes.told, "the node is reported before the attempt's end"
    assert nodes.facts() == (2, [1, 2])
    for _ in range(3):
        nodes.sample()
    assert nodes.facts() == (2, [1, 2])
    nodes.agent = NodeAgent("n1", str(nodes.folder), LIMITS)  # it was started anew
    for _ in range(3):
        nodes.sample()
    assert nodes.facts() == (2, [1, 2])
    stuck.kill()
    stuck.wait()
    nodes.sample()
    nodes.sample()
    assert nodes.facts() == (4, [])


def test_fences_are_lifted_by_an_administrator(nodes, process):
    nodes.end(1, stuck=[process().pid])
    nodes.keeper._fences.settle = nothing  # there is no Ray here
    asyncio.run(nodes.keeper.forgive(NODE))
    nodes.sample()
    assert nodes.facts() == (4, [])


async def nothing(*_args):
    """Nothing."""


def test_a_gpu_that_others_have_a_part_of_is_judged_when_they_are_gone(nodes, process):
    nodes.others[8, 1] = {(NODE, 1)}
    assert nodes.end(1, stuck=[process().pid]) == {}


def test_a_silent_agent_keeps_gpus_that_were_ever_seen_and_not_those_that_are_numbers(nodes):
    nodes.silent = True
    assert nodes.end(1) == {}
    nodes.keeper._real.add(NODE)
    assert nodes.end(1) == {NODE: {1: "its node's agent did not say whether it is clean"}}
    assert nodes.facts() == (3, [1])
    nodes.silent = False
    nodes.sample()
    nodes.sample()
    assert nodes.facts() == (4, [])


def test_an_attempt_that_ray_gave_a_fenced_gpu_is_told_so(nodes):
    nodes.keeper.ward.fence(NODE, 1, "Xid 79")
    assert nodes.keeper.objection(NODE, [0, 1]) == "GPU 1 is fenced: Xid 79"
    assert nodes.keeper.objection(NODE, [0, 2]) == ""
    assert nodes.keeper.objection("another", [1]) == ""


def test_nothing_idle_is_judged_before_it_is_known_which_attempts_there_are(nodes):
    nodes.keeper.judging = False
    for now in range(5):
        nodes.keeper.ward.sampled(
            NODE, {"node": [], "gpus": {}, "dirt": {"1": "x"}}, nodes.keeper._held_or_unknown, now
        )
    assert nodes.facts() == (4, [])


def test_a_node_that_is_not_well_is_reported_so_with_its_gpus(nodes):
    told = {"node": ["disk full"], "gpus": {}, "dirt": {}}
    nodes.keeper.ward.sampled(NODE, told, nodes.keeper._held_or_unknown, time.monotonic())
    facts = nodes.keeper.facts(NODE, {"name": "n1", "gpus": 4})
    assert (facts["schedulable"], facts["why"], facts["gpus"]) == (False, "unhealthy: disk full", 4)


def test_clocks_are_compared_by_a_round_trip(nodes):
    for _ in range(2):
        asyncio.run(nodes.keeper.compare_clocks(NODE))
    skew, doubt = nodes.keeper.ward.nodes[NODE].skew
    assert abs(skew) <= doubt + 0.001
    nodes.agent.clock = lambda: 0.0
    for _ in range(12):
        asyncio.run(nodes.keeper.compare_clocks(NODE))
    assert "its clock is over 5 s behind" in nodes.keeper.facts(NODE, {"gpus": 4})["why"]


class Found(Fences):
    """Fences of which the test says what Ray would find."""

    up = ()

    async def _find(self, _prefix):
        return [(f"actor-{index}", {"node_id": NODE, "gpus": [index], "why": "dirty"}) for index in self.up]


def test_a_fence_whose_actor_died_holds_nothing_any_more():
    fences = Found(None)
    fences.up = (1, 2)
    assert asyncio.run(fences.recover()) == {NODE: {1: "dirty", 2: "dirty"}}
    fences.up = (2, 3)
    asyncio.run(fences.check())
    assert fences.held(NODE) == {2}, "and what somebody else put up is not ours"
