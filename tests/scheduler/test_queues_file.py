"""Queue files: every problem at its line with its fix, and written back they mean the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.jobs.errors import SpecError
from gpusched.policies.tree import CPUS, GPUS, Limits, PreemptionRules, QueueNode, Quota, Tree
from gpusched.scheduler.queues import parse_queues, read_queues, write_queues
from gpusched.scheduler.queues.compare import beyond, changes

FULL = """
apiVersion: gpusched/v1
kind: Queues
default_queue: chat
queues:
  - name: lab
    nominal_quota: 4
  - name: nlp
    parent: lab
    weight: 2.5
    nominal_quota: {h100: 8, gpu: 12, cpus: 64}
    borrowing_limit: {H100: 4}
    lending_limit: {H100: 8}
    preemption: {within_queue: never, reclaim_within_cohort: lower_priority, borrow_within_cohort: lower_priority}
    min_runtime: 10m
    limits: {running_jobs: 10, per_user: {gpus: 4, running_jobs: 3}, per_job: {gpus: 0.5}}
    priority: {min: 10, max: 60}
    non_preemptible_may_borrow: true
    users: {ann: 2, 1234: 0}
  - name: chat
    cohort: lab
    paused: true
"""


def problems(text: str) -> list[tuple[int, str, str, str]]:
    """(line, key, message, hint) of every problem."""
    with pytest.raises(SpecError) as caught:
        parse_queues(text, file="q.yaml")
    assert all(problem.file == "q.yaml" for problem in caught.value.problems)
    return [(one.line, one.key, one.message, one.hint) for one in caught.value.problems]


def test_every_key_of_a_file_arrives_in_the_tree():
    tree = parse_queues(FULL, file="q.yaml")
    assert tree.default == "chat"
    lab, nlp, chat = tree.queues
    assert lab == QueueNode("lab", quotas={GPUS: Quota(4)})
    assert chat == QueueNode("chat", "lab", paused=True)
    assert nlp == QueueNode(
        "nlp",
        "lab",
        weight=2.5,
        quotas={"H100": Quota(8, 4, 8), GPUS: Quota(12), CPUS: Quota(64)},
        preemption=PreemptionRules("never", "lower_priority", "lower_priority"),
        min_runtime=600.0,
        limits=Limits(running_jobs=10, user_gpus=4, user_running_jobs=3, job_gpus=0.5),
        priority_min=10,
        priority_max=60,
        non_preemptible_may_borrow=True,
        users={"ann": 2, "1234": 0},
    )


def test_the_queue_named_default_is_the_default_one():
    assert parse_queues("queues: [{name: default}, {name: b}]", file="q").default == "default"
    assert parse_queues("queues: [{name: a}, {name: b}]", file="q").default == ""


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            "{name: a, cells: {row: 1}}",
            [(2, "queues[0].cells.row", "row is no level of the topology", None)],
        ),
        (
            "{name: a, cells: 3}",
            [
                (
                    2,
                    "queues[0].cells",
                    "must be a mapping of levels to numbers of cells, not 3",
                    "write `cells: {rack: 1, node: 4, gpu: 2}`",
                )
            ],
        ),
        ("{name: a, cells: {node: some}}", [(2, "queues[0].cells.node", "must be a whole number, not some", "")]),
        ("{name: a, weight: -1}", [(2, "queues[0].weight", "must be from 0 to 1,000,000, not -1", "")]),
        ("{name: a, nominal_quota: '8'}", [(2, "queues[0].nominal_quota", None, None)]),
        ("{name: a, nominal_quota: {H100: -8}}", [(2, "queues[0].nominal_quota.H100", None, "")]),
        (
            "{name: a, nominal_quota: {H100: '8'}}",
            [(2, "queues[0].nominal_quota.H100", "must be a number of GPUs, not 8", "remove the quotes")],
        ),
        (
            "{name: a, nominal_quota: {H100: 8, h100: 4}}",
            [(2, "queues[0].nominal_quota.h100", "H100 is named twice", "keep one of them")],
        ),
        ("{name: a, nominal_quota: 0.0001}", [(2, "queues[0].nominal_quota", "0.0001 is too fine", None)]),
        ("{name: a, nominal_quota: .inf}", [(2, "queues[0].nominal_quota", None, None)]),
        ("{name: a, nominalQuota: 8}", [(2, "queues[0].nominalQuota", "unknown key", "did you mean `nominal_quota`?")]),
        ("{name: a, deserved: 8}", [(2, "queues[0].deserved", "unknown key", "did you mean `nominal_quota`?")]),
        (
            "{name: a, preemption: {reclaimWithinCohort: any}}",
            [(2, "queues[0].preemption.reclaimWithinCohort", "unknown key", "did you mean `reclaim_within_cohort`?")],
        ),
        (
            "{name: a, preemption: {within_queue: nevr}}",
            [
                (
                    2,
                    "queues[0].preemption.within_queue",
                    "must be never or lower_priority, not nevr",
                    "did you mean `never`?",
                )
            ],
        ),
        ("{name: a, priority: {min: 60, max: 50}}", [(2, "queues[0].priority", "min 60 is above max 50", "swap them")]),
        ("{name: a, users: {ann: -2}}", [(2, "queues[0].users.ann", None, "")]),
        ("{name: a, min_runtime: 10}", [(2, "queues[0].min_runtime", None, None)]),
        ("{weight: 1}", [(2, "queues[0].name", "is required", "write `name: ...`")]),
        (
            "{name: a}\n  - {name: a}",
            [(3, "queues[1].name", "there is a queue a already, in line 2", "rename one of them")],
        ),
        (
            "{name: team}\n  - {name: b, parent: teem}",
            [(3, "queues[1].parent", "there is no queue teem", "did you mean `team`?")],
        ),
        ("{name: b, cohort: x}", [(2, "queues[0].cohort", "there is no queue x", "add `- name: x` to the list")]),
        (
            "{name: a, parent: a}",
            [(2, "queues[0].parent", "is its own parent", "leave `parent` out of one of them")],
        ),
        (
            "{name: a, parent: c}\n  - {name: b, parent: a}\n  - {name: c, cohort: b}\n  - {name: d, parent: a}",
            [(2, "queues[0].parent", "is a circle: a -> c -> b -> a", "leave `parent` out of one of them")],
        ),
        (
            "{name: a}\n  - {name: b, parent: a, cohort: a}",
            [(3, "queues[1].cohort", "is the same as `parent`, which is given too", "keep one")],
        ),
        (
            "{name: a, nominal_quota: 4, borrowing_limit: 2}",
            [(2, "queues[0].borrowing_limit", "a has no parent, so there is nobody to borrow from", None)],
        ),
        (
            "{name: a}\n  - {name: b, parent: a, nominal_quota: {H100: 4}, lending_limit: {H100: 5}}",
            [(3, "queues[1].lending_limit.H100", "lends 5, but its nominal quota is 4", "write 4 or less")],
        ),
        (
            "{name: a}\n  - {name: b, parent: a, lending_limit: 1}",
            [(3, "queues[1].lending_limit", "lends 1, but its nominal quota is 0", "write 0 or less")],
        ),
        (
            "{name: default}\n  - {name: b, parent: default}",
            [(2, "queues[0].name", "jobs that name no queue go to `default`, and this one has queues below it", None)],
        ),
        (
            "{name: lab, nominal_quota: 4}\n  - {name: a, parent: lab, nominal_quota: {h100: 8}}",
            [(3, "queues[1].nominal_quota.h100", "is 8, but a could have only 4 GPUs of any type", None)],
        ),
        ("7", [(2, "queues[0]", None, None)]),
    ],
)
def test_a_fault_is_told_with_its_line_key_and_fix(entries, expected):
    found = problems(f"queues:\n  - {entries}\n")
    assert len(found) == len(expected)
    for (line, key, message, hint), (at, where, said, fix) in zip(found, expected, strict=True):
        assert (line, key) == (at, where)
        assert said is None or message == said
        assert fix is None or hint == fix


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("", "", "the file is empty"),
        ("queues: []", "queues", "has no queue in it"),
        ("queues: {a: 1}", "queues", "must be a list of queues"),
        ("default_queue: a", "queues", "is required"),
        ("- a", "", "must be a mapping of keys to values, not a list"),
        ("queues: [{name: a}]\n---\nqueues: [{name: b}]", "", "a second document"),
        ("queues: [{name: a}]\ndefault_queue: b", "default_queue", "there is no queue b"),
        (
            "queues: [{name: a}, {name: b, parent: a}]\ndefault_queue: a",
            "default_queue",
            "a has queues below it and takes no jobs",
        ),
        (
            "queues: [{name: a}, {name: default}]\ndefault_queue: a",
            "default_queue",
            "is a, but jobs that name no queue go to the one named `default`",
        ),
        ("queues: [{name: a}]\nqueue: 1", "queue", "unknown key"),
        ("kind: Job\nqueues: [{name: a}]", "kind", "must be Queues, not Job"),
        ("queues: [{name: a}\n", "", None),
    ],
)
def test_a_file_that_is_no_queue_file_says_so(text, key, message):
    (found,) = problems(text)
    assert found[1] == key
    assert message is None or found[2] == message


def test_every_problem_is_told_at_once_and_in_the_order_of_the_file():
    text = """default_queue: chta
queues:
  - name: lab
    weight: -2
    parent: lab2
  - name: nlp
    parnt: x
    nominal_quota: {H100: "8"}
  - name: nlp
  - name: a
    parent: b
  - name: b
    parent: a
    limits: {per_user: {gpu: 3}}
"""
    assert [(line, key) for line, key, *_ in problems(text)] == [
        (1, "default_queue"),
        (4, "queues[0].weight"),
        (5, "queues[0].parent"),
        (7, "queues[1].parnt"),
        (8, "queues[1].nominal_quota.H100"),
        (9, "queues[2].name"),
        (11, "queues[3].parent"),
        (14, "queues[4].limits.per_user.gpu"),
    ]


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(SpecError, match=r"gone.yaml: cannot be read: No such file"):
        read_queues(tmp_path / "gone.yaml")


def test_an_alias_shares_settings_between_queues():
    text = (
        "queues:\n- {name: lab}\n- &team {name: a, parent: lab, weight: 3, nominal_quota: 2}\n- {<<: *team, name: b}\n"
    )
    a, b = parse_queues(text, file="q").queues[1:]
    assert (a.name, b.name) == ("a", "b")
    assert (b.parent, b.weight, b.quotas) == (a.parent, a.weight, a.quotas)


# What changes -----------------------------------------------------------------------------------------------------


def said(old: str, new: str) -> list[str]:
    return [str(change) for change in changes(parse_queues(old, file="a"), parse_queues(new, file="b"))]


def test_what_changes_is_told_key_by_key():
    old = "queues: [{name: lab}, {name: a, parent: lab, nominal_quota: 4, weight: 2}, {name: old, parent: lab}]"
    new = (
        "default_queue: a\n"
        "queues: [{name: lab}, {name: a, parent: lab, nominal_quota: {gpus: 8, H100: 2}}, {name: new, paused: true}]"
    )
    assert said(old, new) == [
        "~ default_queue: (left out) -> a",
        "~ queue a: weight: 2 -> (left out)",
        "~ queue a: nominal_quota.gpus: 4 -> 8",
        "~ queue a: nominal_quota.H100: (left out) -> 2",
        "+ queue new: paused true",
        "- queue old: parent lab",
    ]


def test_nothing_changes_by_comments_or_by_what_is_left_out():
    assert said(FULL, f"# the same\n{FULL}") == []
    assert said("queues: [{name: a}]", "queues: [{name: a, weight: 1, paused: false, nominal_quota: {}}]") == []


def test_another_order_of_the_queues_is_a_change():
    assert said("queues: [{name: a}, {name: b}]", "queues: [{name: b}, {name: a}]") == ["~ order: a, b -> b, a"]


def test_without_queues_before_or_after_everything_came_or_went():
    tree = parse_queues("queues: [{name: a}]", file="a")
    assert [str(change) for change in changes(None, tree)] == ["+ queue a"]
    assert [str(change) for change in changes(tree, None)] == ["- queue a"]
    assert changes(None, None) == []


def test_quotas_beyond_the_cluster_are_named_with_both_numbers():
    tree = parse_queues(
        "queues: [{name: a, nominal_quota: {H100: 9, gpus: 9, V100: 1}}, {name: b, nominal_quota: 3}]", file="q"
    )
    assert beyond(tree, {GPUS: 12, "h100": 8, CPUS: 4}) == [
        "nominal quotas add up to 9 H100 GPUs, and the cluster has 8",
        "nominal quotas add up to 1 V100 GPUs, and the cluster has 0",
    ]
    assert beyond(tree, {}) == [], "a cluster that is not known yet"


# Round trip -------------------------------------------------------------------------------------------------------

amounts = st.integers(0, 64_000).map(lambda milli: milli / 1000)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,6}", fullmatch=True)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Any tree that a file may say."""
    nodes: list[QueueNode] = []
    for name in draw(st.lists(names, min_size=1, max_size=6, unique=True)):
        parent = draw(st.sampled_from(["", *(node.name for node in nodes)])) if nodes else ""
        parent = "" if parent == "default" else parent
        quotas = {}
        for flavour in draw(st.lists(st.sampled_from([GPUS, CPUS, "H100", "Odd.Type"]), unique=True, max_size=3)):
            nominal = draw(amounts)
            borrowing = draw(st.none() | amounts) if parent else None
            lending = draw(st.none() | st.sampled_from([0.0, nominal])) if parent else None
            quotas[flavour] = Quota(nominal, borrowing, lending)
        low, high = sorted(draw(st.tuples(st.integers(0, 100), st.integers(0, 100))))
        count = st.none() | st.integers(0, 99)
        rule, lower = st.sampled_from(["never", "lower_priority", "any"]), st.sampled_from(["never", "lower_priority"])
        node = QueueNode(
            name,
            parent,
            weight=draw(amounts),
            quotas=quotas,
            preemption=PreemptionRules(draw(lower), draw(rule), draw(lower)),
            min_runtime=draw(st.integers(0, 10**6)) / 10,
            limits=Limits(draw(count), draw(st.none() | amounts), draw(count), draw(st.none() | amounts)),
            priority_min=low,
            priority_max=high,
            non_preemptible_may_borrow=draw(st.booleans()),
            paused=draw(st.booleans()),
            users=draw(
                st.dictionaries(st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=5), amounts)
            ),
            cells=draw(st.dictionaries(st.sampled_from(["gpu", "node", "rack"]), st.integers(1, 99))),
        )
        nodes.append(node)
    if any(GPUS in node.quotas for node in nodes):  # whoever has GPUs of a type has as many of any type
        for at, node in enumerate(nodes):
            typed = max((quota.nominal for kind, quota in node.quotas.items() if kind not in {GPUS, CPUS}), default=0.0)
            if typed:
                own = Quota(max(typed, node.quotas.get(GPUS, Quota()).nominal))
                nodes[at] = replace(node, quotas={**node.quotas, GPUS: own})
    topology = draw(st.sampled_from([(), ("hall", "rack"), ("rack",)]))
    leaves = [node.name for node in nodes if all(other.parent != node.name for other in nodes)]
    if any(node.name == "default" for node in nodes):
        return Tree(tuple(nodes), "default", topology)
    return Tree(tuple(nodes), draw(st.sampled_from(["", *leaves])), topology)


@settings(max_examples=150, deadline=None)
@given(tree=trees())
def test_what_is_exported_applies_to_the_same_tree(tree):
    text = write_queues(tree)
    again = parse_queues(text, file="export")
    assert again == tree
    assert write_queues(again) == text
    assert changes(tree, again) == []


@pytest.mark.parametrize(
    ("topology", "said"),
    [
        ("rack", "must be a list of node labels, not rack"),
        ("[rack, rack]", "rack is named twice"),
        ("[rack, node]", "`node` is no label key"),
    ],
)
def test_the_levels_of_the_topology_are_node_labels(topology, said):
    with pytest.raises(SpecError) as caught:
        parse_queues(f"topology: {topology}\nqueues: [{{name: a}}]\n", file="q.yaml")
    assert said in str(caught.value)


def test_the_topology_of_a_site_is_part_of_its_file_and_of_what_changed():
    tree = parse_queues("topology: [hall, row]\nqueues: [{name: a, cells: {row: 2}}]\n", file="q.yaml")
    assert (tree.topology, dict(tree["a"].cells)) == (("hall", "row"), {"row": 2})
    before = parse_queues("queues: [{name: a}]\n", file="q.yaml")
    assert [str(change) for change in changes(before, tree)] == [
        "~ topology: (left out) -> hall, row",
        "~ queue a: cells.row: (left out) -> 2",
    ]
