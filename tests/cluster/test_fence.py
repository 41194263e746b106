"""Two attempts of one job at once: the later one's number lies beside the checkpoints before it starts."""

import pytest

from gpusched import job
from gpusched.cluster.ray.runner import checkpoint_folder, raise_fence


@pytest.fixture
def folder(tmp_path):
    return checkpoint_folder(str(tmp_path / "checkpoints"), "me", 7)


def test_an_attempt_learns_that_another_one_has_begun(folder, monkeypatch):
    monkeypatch.setenv("GPUSCHED_FENCE", raise_fence(folder, "me", (7, 1)))
    monkeypatch.setenv("GPUSCHED_ATTEMPT", "1")
    assert not job.superseded()
    assert raise_fence(folder, "me", (7, 1)), "each rank of the attempt says so"
    assert not job.superseded()
    raise_fence(folder, "me", (7, 2))
    assert job.superseded()
    assert not job.report_checkpoint(5)


def test_an_attempt_that_comes_late_does_not_start(folder):
    raise_fence(folder, "me", (7, 3))
    with pytest.raises(OSError, match="attempt 3 of job 7 has begun already"):
        raise_fence(folder, "me", (7, 2))


def test_other_jobs_and_other_control_planes_may_share_the_folder(folder):
    raise_fence(folder, "me", (7, 3))
    assert raise_fence(folder, "me", (8, 1)) != raise_fence(folder, "other", (7, 1))


def test_an_address_has_no_fence():
    assert raise_fence(checkpoint_folder("s3://bucket/prefix", "me", 7), "me", (7, 1)) == ""
