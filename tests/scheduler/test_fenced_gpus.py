"""A GPU that is fenced, as users see it: fewer GPUs, the reason, a line of history; and resume gives it back."""

from dataclasses import replace

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from live_kit import NODES, until

WHY = "process 4242 (python, bob) is on it"


@pytest.fixture
def fenced(plane):
    """The first of the plane's nodes has 1 of its 4 GPUs fenced."""
    node = NODES[0]
    plane.backend.change(replace(node, gpus=node.gpus - 1, fenced=((2, WHY),)))
    until(lambda: seen(plane, node.name)["fenced"])
    return node.name


def seen(plane, name):
    return plane.get(f"/v1/nodes/{name}").json["node"]


def test_a_fenced_gpu_is_shown_alone_with_its_reason_and_in_the_history(plane, fenced, cli):  # noqa: F811 - the fixture
    node = seen(plane, fenced)
    assert (node["state"], node["gpus"], node["fenced"]) == ("up", 3, [{"gpu": 2, "why": WHY}])
    told = [line["data"] for line in node["events"] if line["data"]["what"] == "fenced"]
    assert told == [{"node": fenced, "what": "fenced", "gpu": 2, "why": WHY}]
    assert f"GPU 2 is fenced: {WHY}" in cli.at(plane)("nodes", fenced).stdout


def test_jobs_get_what_is_left_and_one_that_needs_all_waits_until_it_is_back(plane, fenced):
    three = plane.submit("true", gpus=3)["id"]
    plane.wait(three)
    names = {node.name for node in NODES}
    for name in names - {fenced}:
        plane.post(f"/v1/nodes/{name}/cordon", {})
    four = plane.submit("true", gpus=4)["id"]
    until(lambda: plane.job(four)["reason"])
    assert plane.job(four)["state"] == "QUEUED"
    plane.backend.change(next(node for node in NODES if node.name == fenced))
    plane.wait(four)
    assert plane.job(four)["nodes"] == [fenced]
    assert [line["data"]["what"] for line in seen(plane, fenced)["events"]][-1] == "unfenced"


def test_resume_has_what_is_remembered_of_the_gpus_forgotten(plane, fenced):
    asked = []
    plane.controller.door.forgive = asked.append
    answer = plane.post(f"/v1/nodes/{fenced}/resume").json["node"]
    assert asked == [fenced]
    assert answer["name"] == fenced


def test_the_store_remembers_the_fence_for_the_next_control_plane(plane, fenced):
    kept = {change.node.name: change.node for _number, change in plane.controller.store.known_nodes()}
    assert kept[fenced].fenced == ((2, WHY),)
    assert all(node.fenced == () for name, node in kept.items() if name != fenced)
