"""The queue tree: who is above whom, and Kueue's arithmetic of nominal, borrowed and lent quota."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpusched.policies.quota import Usage
from gpusched.policies.tree import GPUS, Limits, QueueNode, Quota, Tree


def queue(name: str, parent: str = "", *, gpus: tuple[float | None, ...] | None = None, **rest: object) -> QueueNode:
    """A queue with a quota of GPUs of any type: (nominal, borrowing limit, lending limit)."""
    quotas = {} if gpus is None else {GPUS: Quota(*gpus)}  # type: ignore[arg-type]  # as the words above say
    return QueueNode(name, parent, quotas=quotas, **rest)  # type: ignore[arg-type]  # keys are QueueNode's


def using(tree: Tree, **held: float) -> Usage:
    """What the queues hold of GPUs of any type."""
    usage = Usage(tree)
    for name, gpus in held.items():
        usage.add(name, GPUS, gpus)
    return usage


TWO = Tree((queue("lab"), queue("a", "lab", gpus=(8,)), queue("b", "lab", gpus=(4,))))


def test_a_tree_answers_who_is_above_and_below() -> None:
    tree = Tree((queue("lab"), queue("nlp", "lab"), queue("chat", "nlp"), queue("other")), default="chat")
    assert [node.name for node in tree.children()] == ["lab", "other"]
    assert [node.name for node in tree.children("lab")] == ["nlp"]
    assert [node.name for node in tree.ancestors("chat")] == ["nlp", "lab"]
    assert [node.name for node in tree.leaves()] == ["chat", "other"]
    assert tree.takes_jobs("chat")
    assert not tree.takes_jobs("nlp")
    assert not tree.takes_jobs("gone")
    assert "nlp" in tree
    assert "gone" not in tree


def test_a_job_that_names_no_queue_goes_to_the_default_one() -> None:
    assert Tree((queue("lab"),), default="lab").resolve("default") == "lab"
    assert Tree((queue("lab"),)).resolve("default") == "default"
    assert Tree((queue("lab"), queue("default")), default="default").resolve("default") == "default"
    assert Tree((queue("lab"),), default="lab").resolve("gone") == "gone"


def test_a_pause_holds_for_all_queues_below() -> None:
    tree = Tree((queue("lab", paused=True), queue("nlp", "lab"), queue("other")))
    assert tree.paused("nlp") == "lab"
    assert tree.paused("other") == ""


def test_the_nearest_word_on_a_users_weight_counts_and_the_longest_minimum_run_time() -> None:
    tree = Tree((queue("lab", users={"ann": 2.0, "bob": 3.0}, min_runtime=60.0), queue("nlp", "lab", users={"ann": 5})))
    assert [tree.user_weight("nlp", user) for user in ("ann", "bob", "cid")] == [5, 3, 1]
    assert tree.min_runtime("nlp") == 60


def test_what_one_queue_leaves_unused_the_other_may_borrow() -> None:
    assert TWO.headroom("a", GPUS, using(TWO)) == 12
    assert TWO.headroom("b", GPUS, using(TWO, a=8)) == 4
    assert TWO.headroom("b", GPUS, using(TWO, a=10)) == 2
    assert using(TWO, a=10).over_nominal("a", GPUS) == 2
    assert using(TWO, a=7).over_nominal("a", GPUS, 3) == 2
    assert using(TWO, a=7).over_nominal("a", GPUS) == 0


def test_a_borrowing_limit_ends_the_borrowing() -> None:
    tree = Tree((queue("lab"), queue("a", "lab", gpus=(8, 1)), queue("b", "lab", gpus=(4,))))
    assert tree.headroom("a", GPUS, using(tree)) == 9
    assert tree.headroom("a", GPUS, using(tree, a=9)) == 0
    assert tree.headroom("a", GPUS, using(tree, a=8, b=4)) == 0
    assert tree.potential("a", GPUS) == 9


def test_a_lending_limit_keeps_the_rest_for_its_owner() -> None:
    tree = Tree((queue("lab"), queue("a", "lab", gpus=(8, None, 2)), queue("b", "lab", gpus=(4,))))
    assert tree.headroom("b", GPUS, using(tree)) == 6
    assert tree.headroom("a", GPUS, using(tree, b=6)) == 6, "what it does not lend is there at once"
    assert tree.headroom("a", GPUS, using(tree)) == 12
    assert tree.subtree_quota("lab", GPUS) == 6


def test_a_queue_without_quota_beside_one_that_has_it_lives_by_borrowing() -> None:
    tree = Tree((queue("lab"), queue("a", "lab", gpus=(8,)), queue("guest", "lab")))
    assert tree.nominal("guest", GPUS) == 0
    assert tree.headroom("guest", GPUS, using(tree, a=3)) == 5


def test_a_parents_own_quota_is_there_for_all_below() -> None:
    tree = Tree((queue("lab", gpus=(6,)), queue("a", "lab", gpus=(1,)), queue("b", "lab")))
    assert tree.headroom("b", GPUS, using(tree)) == 7
    assert tree.headroom("b", GPUS, using(tree, a=2)) == 5


def test_roots_share_nothing() -> None:
    tree = Tree((queue("a", gpus=(8,)), queue("b", gpus=(4,))))
    assert tree.headroom("b", GPUS, using(tree)) == 4


def test_a_flavour_that_no_queue_of_a_tree_has_is_not_limited_there() -> None:
    tree = Tree((queue("a", gpus=(8,)), queue("b")))
    assert tree.headroom("b", GPUS, using(tree)) == math.inf
    assert tree.headroom("a", "H100", using(tree)) == math.inf
    assert tree.nominal("b", GPUS) == math.inf
    usage = using(tree, b=100)
    assert usage.fits("b", GPUS, 1000)
    assert usage.over_nominal("b", GPUS) == 0


def test_nested_parents_borrow_within_their_own_limits() -> None:
    """By hand: org pools 4 (its own) + 6 (of lab: 2 + 6, of which it lends 6) + 10 (of shop) = 20."""
    tree = Tree(
        (
            queue("org", gpus=(4,)),
            queue("lab", "org", gpus=(2, 3, 6)),
            queue("nlp", "lab", gpus=(6, None, None)),
            queue("shop", "org", gpus=(10,)),
        )
    )
    assert tree.subtree_quota("org", GPUS) == 20
    assert tree.potential("nlp", GPUS) == 11, "the 8 of lab, and lab borrows 3 at most"
    assert tree.headroom("nlp", GPUS, using(tree, shop=17)) == 5, "2 that lab keeps, and 3 that are left in org"
    assert tree.headroom("shop", GPUS, using(tree, nlp=11)) == 11, "lab's first 2 count against nobody"
    assert using(tree, nlp=11).of("org", GPUS) == 9


def test_quotas_that_shrank_under_running_jobs_leave_less_than_nothing() -> None:
    assert TWO.headroom("b", GPUS, using(TWO, a=10, b=5)) == -3


def test_thousandths_add_up_exactly() -> None:
    tree = Tree((queue("a", gpus=(1,)),))
    usage = Usage(tree)
    for _ in range(9):
        usage.add("a", GPUS, 0.1)
    assert usage.fits("a", GPUS, 0.1)
    assert not usage.fits("a", GPUS, 0.101)


def test_totals_are_by_flavour() -> None:
    nodes = (
        QueueNode("a", quotas={GPUS: Quota(8), "H100": Quota(4)}),
        QueueNode("b", quotas={GPUS: Quota(0.5), "A100": Quota(2)}),
    )
    assert Tree(nodes).totals() == {GPUS: 8.5, "H100": 4, "A100": 2}
    assert Tree(nodes).flavours == ("A100", "H100", GPUS)


@pytest.mark.parametrize(
    "queues",
    [
        (queue("a"), queue("a")),
        (queue("a", "gone"),),
        (queue("a", "b"), queue("b", "a")),
        (queue("a", "a"),),
    ],
)
def test_a_tree_that_is_none_is_a_programmers_error(queues: tuple[QueueNode, ...]) -> None:
    with pytest.raises(AssertionError):
        Tree(queues)


# Laws -------------------------------------------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A tree of up to eight queues with quotas of one flavour, each limit or none."""
    nodes: list[QueueNode] = []
    for number in range(draw(st.integers(1, 8))):
        parent = draw(st.sampled_from(["", *(node.name for node in nodes)])) if nodes else ""
        nominal = draw(st.integers(0, 8))
        limit = st.none() | st.integers(0, 6)
        borrowing, lending = (draw(limit), draw(limit)) if parent else (None, None)
        nodes.append(queue(f"q{number}", parent, gpus=(nominal, borrowing, lending), limits=Limits()))
    return Tree(tuple(nodes))


def slow_headroom(tree: Tree, name: str, held: dict[str, float]) -> float:
    """The definition, recursive and by floats: what is left here and above."""

    def subtree(at: str) -> float:
        return tree[at].quotas[GPUS].nominal + sum(subtree(c.name) - kept(c.name) for c in tree.children(at))

    def kept(at: str) -> float:
        limit = tree[at].quotas[GPUS].lending_limit
        return 0 if limit is None else max(0, subtree(at) - limit)

    def used(at: str) -> float:
        below = tree.children(at)
        return held.get(at, 0) + sum(max(0, used(child.name) - kept(child.name)) for child in below)

    def available(at: str) -> float:
        parent = tree[at].parent
        if not parent:
            return subtree(at) - used(at)
        above = available(parent)
        limit = tree[at].quotas[GPUS].borrowing_limit
        if limit is not None:
            above = min(above, subtree(at) - kept(at) - max(0, used(at) - kept(at)) + limit)
        return max(0, kept(at) - used(at)) + above

    return available(name)


@settings(max_examples=150, deadline=None)
@given(tree=trees(), data=st.data())
def test_headroom_counted_step_by_step_is_the_one_of_the_definition(tree: Tree, data: st.DataObject) -> None:
    usage = Usage(tree)
    milli: dict[str, int] = {}
    for _ in range(data.draw(st.integers(0, 12))):
        name = data.draw(st.sampled_from([node.name for node in tree.leaves()]))
        if milli.get(name) and data.draw(st.booleans()):
            amount = -data.draw(st.integers(1, milli[name]))
            usage.remove(name, GPUS, -amount / 1000)
        else:
            amount = data.draw(st.integers(1, 9000))
            usage.add(name, GPUS, amount / 1000)
        milli[name] = milli.get(name, 0) + amount
        held = {queue: amount / 1000 for queue, amount in milli.items()}
        for leaf in tree.leaves():
            expected = slow_headroom(tree, leaf.name, held)
            assert tree.headroom(leaf.name, GPUS, usage) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(tree=trees(), data=st.data())
def test_who_takes_only_within_the_headroom_never_takes_more_than_there_is(tree: Tree, data: st.DataObject) -> None:
    usage = Usage(tree)
    held = dict.fromkeys((node.name for node in tree), 0.0)
    for name in data.draw(st.lists(st.sampled_from([node.name for node in tree.leaves()]), max_size=12)):
        room = tree.headroom(name, GPUS, usage)
        assert room >= 0
        amount = data.draw(st.integers(0, int(room * 1000))) / 1000
        assert usage.fits(name, GPUS, amount)
        usage.add(name, GPUS, amount)
        held[name] += amount
    assert sum(held.values()) <= tree.totals()[GPUS] + 1e-9
    for node in tree.leaves():
        limit = node.quotas[GPUS].borrowing_limit
        if limit is not None:
            assert held[node.name] <= node.quotas[GPUS].nominal + limit + 1e-9


@settings(max_examples=50, deadline=None)
@given(tree=trees(), data=st.data())
def test_what_is_given_back_leaves_no_trace_whatever_the_order(tree: Tree, data: st.DataObject) -> None:
    usage = Usage(tree)
    takes = data.draw(
        st.lists(st.tuples(st.sampled_from([node.name for node in tree.leaves()]), st.integers(1, 9)), max_size=10)
    )
    for name, gpus in takes:
        usage.add(name, GPUS, gpus)
    before = usage.copy()
    for name, gpus in data.draw(st.permutations(takes)):
        usage.remove(name, GPUS, gpus)
    assert all(usage.of(node.name, GPUS) == 0 for node in tree)
    for node in tree.leaves():
        assert usage.headroom(node.name, GPUS) == tree.potential(node.name, GPUS)
    assert all(before.of(name, GPUS) > 0 for name, _ in takes), "the copy was left alone"


def test_a_deep_tree_costs_its_depth() -> None:
    names = [f"q{number}" for number in range(500)]
    nodes = [queue(names[0], gpus=(1,)), *(queue(name, above, gpus=(1,)) for above, name in pairwise(names))]
    tree = Tree(tuple(nodes))
    assert tree.headroom(names[-1], GPUS, using(tree, **{names[-1]: 3})) == 497
