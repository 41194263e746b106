"""Fragments: F against its definition, classes and their popularity, and the rates by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import cluster
from gpusched.cluster.pool import Pool
from gpusched.jobs.job import Piece, Shape
from gpusched.policies.fragmentation import (
    PUBLISHED,
    Fragmentation,
    TaskClass,
    classes_of,
    fragmentation_rate,
    fragments,
    gang_fragmentation_rate,
    idle_gpus,
)


def by_definition(cpu: int, free: int, parts: list[int], gpu_type: str, task: TaskClass) -> int:
    """F_n(c) in thousandths of a GPU, word for word."""
    gpus = [1000] * free + parts
    fitting = [left for left in gpus if left >= task.gpu_milli]
    runs = (
        task.gpus > 0
        and cpu >= task.cpu_milli
        and len(fitting) >= task.gpus
        and (not task.gpu_types or gpu_type in task.gpu_types)
    )
    return sum(left for left in gpus if left < task.gpu_milli) if runs else sum(gpus)


CLASSES = st.builds(
    lambda weight, cpu, ask, types: TaskClass(weight, cpu, *ask, types if ask[0] else ()),
    st.integers(1, 50),
    st.sampled_from([0, 1000, 4000, 8000]),
    st.sampled_from([(0, 0), (1, 200), (1, 500), (1, 1000), (2, 1000), (4, 1000)]),
    st.sampled_from([(), ("A",), ("A", "B")]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(CLASSES, min_size=1, max_size=8),
    st.integers(0, 9000),
    st.integers(0, 4),
    st.lists(st.integers(1, 999), max_size=4),
    st.sampled_from(["A", "B", ""]),
)
def test_f_is_the_mean_of_its_definition_over_classes(classes, cpu, free, parts, gpu_type):
    metric = Fragmentation(classes)
    expected = sum(task.weight * by_definition(cpu, free, parts, gpu_type, task) for task in classes)
    for _ in range(2):  # worked out, then remembered
        assert metric.of(cpu, free, tuple(sorted(parts)), gpu_type) == expected


def test_the_most_popular_classes_that_make_up_the_share():
    """6 + 3 of 10 reach 90 %; at 95 % the third comes in."""
    shapes = [Shape(1, 1)] * 6 + [Shape(1, 0, 500, cpu_milli=2000)] * 3 + [Shape(1, cpu_milli=1000)]
    assert classes_of(shapes, 0.9) == (TaskClass(6, 0, 1, 1000), TaskClass(3, 2000, 1, 500))
    assert classes_of(shapes)[2] == TaskClass(1, 1000, 0, 0)


def test_of_equally_popular_classes_the_more_demanding_comes_first():
    shapes = [Shape(1, 1), Shape(1, 2), Shape(1, 0, 300), Shape(1, 1, cpu_milli=500)]
    assert [(task.cpu_milli, task.gpus, task.gpu_milli) for task in classes_of(shapes, 1.0)] == [
        (500, 1, 1000),
        (0, 2, 1000),
        (0, 1, 1000),
        (0, 1, 300),
    ]


def test_each_piece_of_a_gang_is_a_task_and_a_total_is_cut_by_nodes():
    assert classes_of([Shape(3, 2)]) == (TaskClass(3, 0, 2, 1000),)
    assert classes_of([Shape(0, 20)], 1.0, size=8) == (TaskClass(2, 0, 8, 1000), TaskClass(1, 0, 4, 1000))
    assert classes_of([Shape(0, 20)]) == (TaskClass(1, 0, 20, 1000),)


def test_the_rates_of_a_small_cluster_by_hand():
    """4 GPUs with 1 in use; 4 GPUs with one shared to 0.4. Tasks of 4 GPUs and, as often, of 0.5 GPU.

    Idle: 3 + 3.4. For 4 GPUs all of it is a fragment; for 0.5 GPU only nothing and 0.4 are: F = (6.4 + 0.4) / 2. Hence
    the rate 3.4 / 6.4. No node has 4 free, both have 2.
    """
    pool = Pool(cluster("2x4"))
    pool.take(Shape(1, 1), (Piece(0, 1),))
    pool.take(Shape(1, 0, 600), (Piece(1, 0, 600, 0),))
    classes = (TaskClass(1, 0, 4, 1000), TaskClass(1, 0, 1, 500))
    assert idle_gpus(pool) == pytest.approx(6.4)
    assert fragments(pool, classes) == pytest.approx(3.4)
    assert fragmentation_rate(pool, classes) == pytest.approx(3.4 / 6.4)
    assert fragments(pool, classes, 0b01) == pytest.approx(1.5)
    assert gang_fragmentation_rate(pool, 4) == 1.0
    assert gang_fragmentation_rate(pool, 2) == 0.0
    pool.take(Shape(1, 2), (Piece(0, 2),))
    assert gang_fragmentation_rate(pool, 2) == pytest.approx(1 / 4.4)


def test_nothing_idle_is_no_fragment():
    pool = Pool(cluster("1x2"))
    pool.take(Shape(1, 2), (Piece(0, 2),))
    assert fragmentation_rate(pool, PUBLISHED) == gang_fragmentation_rate(pool, 1) == 0.0


def test_types_are_compared_as_the_pool_does():
    assert Fragmentation((TaskClass(1, 0, 1, 1000, ("a100",)),)).of(0, 2, (), "A100") == 0
    assert Fragmentation((TaskClass(1, 0, 1, 1000, ("a100",)),)).of(0, 2, (), "T4") == 2000
