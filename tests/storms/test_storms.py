"""Two hundred storms, the same in every run. A failing one prints the line that repeats it."""

from __future__ import annotations

import logging

import pytest
from storm_replay import line_for, weather

SEEDS = [
    *((seed, "memory") for seed in range(170)),
    *((seed, "sqlite") for seed in range(24)),
    *(pytest.param(seed, "postgres", marks=pytest.mark.postgres) for seed in range(6)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the databases are; on a disk in memory they need not wait for a real one."""
    logging.disable(logging.CRITICAL)  # thousands of crashes would be told of
    yield tmp_path_factory.mktemp("storms")
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("seed", "store"), SEEDS)
def test_a_storm_breaks_nothing(seed, store, folder, request):
    new = request.getfixturevalue("postgres").migrated_database if store == "postgres" else str
    broken = weather(seed, store, folder, new_database=new)
    if broken is not None:
        raise AssertionError(f"{broken}\nagain: {line_for(seed, store)}") from broken
