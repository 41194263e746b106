"""The limits of the health checks, as a site writes them."""

import pytest

from gpusched.cluster.health import HealthLimits, parse_limits
from gpusched.jobs.errors import SpecError


def test_what_is_not_named_keeps_its_default():
    assert parse_limits("") == HealthLimits()
    limits = parse_limits("disk=2GiB, skew=0.5s,inodes=0,disks=/data:/ckpt,patience=1m")
    assert (limits.disk, limits.skew, limits.inodes, limits.patience) == (2 << 30, 0.5, 0, 60.0)
    assert limits.disks == ("/data", "/ckpt")
    assert limits.memory == HealthLimits().memory


def test_every_fault_is_told_at_once_with_the_way_to_write_it():
    with pytest.raises(SpecError) as caught:
        parse_limits("disk=2,dsk=1GiB,skew=fast,stall=101,disks=data,patience=0", "--health")
    text = str(caught.value)
    for words in (
        "--health: disk:",
        "'dsk=1GiB' is no limit",
        "skew:",
        "stall: cannot be '101'",
        "'data' is no absolute",
    ):
        assert words in text
    assert "patience: cannot be 0" in text
    assert len(caught.value.problems) == 6


def test_the_limits_travel_as_plain_values():
    assert parse_limits("disks=/a").plain()["disks"] == ["/a"]
