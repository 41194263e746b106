"""Jobs that fail on one node of a real cluster go on on another; a node on which several fail is cordoned."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from site_kit import Site, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

A, B, C = "127.0.0.10", "127.0.0.11", "127.0.0.12"

GANG = """\
name: gang
num_nodes: 2
placement: {nodes: distinct}
resources: {accelerators: 1, cpus: 0.1}
checkpoint: {grace: 1s}
retry:
  rules:
  - {on: "log:/flaky (link|switch)/", do: retry_elsewhere, backoff: {first: 1s, most: 1s}}
run: |
  if [ $RANK = 1 ] && [ ! -e FLAG ]; then echo $GPUSCHED_NODE > FLAG; echo the flaky link is down; exit 7; fi
  echo fine on $GPUSCHED_NODE
"""


@pytest.fixture
def joined(ray_cluster):
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    site = Site(folder, {})
    try:
        site.gpusched("up", "--ray-address", ray_cluster.address)
        yield site
    finally:
        site.down()
        shutil.rmtree(folder, ignore_errors=True)


def nodes(site):
    found = json.loads(site.gpusched("nodes", "-o", "json"))
    return {node["name"]: node for node in found["nodes"]}


def test_a_gang_whose_second_rank_fails_by_a_pattern_of_its_log_goes_on_elsewhere(joined, tmp_path):
    """Also: a job out of memory says so, and three jobs that a node fails have it cordoned."""
    flag = tmp_path / "flag"
    file = tmp_path / "gang.yaml"
    file.write_text(GANG.replace("FLAG", str(flag)))
    gang = joined.submit(str(file))
    joined.gpusched("wait", gang, "--timeout", "60s")
    first, last = joined.job(gang)["attempts"]
    bad = flag.read_text().strip()
    assert (first["result"], last["result"]) == ("retried", "succeeded")
    assert (first["cause"], first["failed_node"], first["exit_code"]) == ("pattern", bad, 7)
    assert "log:/flaky (link|switch)/" in first["cause_detail"]
    assert bad not in {rank["node"] for rank in last["ranks"]}
    assert joined.job(gang)["resources"]["avoid"] == [bad]
    said = joined.gpusched("describe", gang)
    assert f"cause: pattern on {bad}" in said

    # Python's own word for it, under a limit on its address space.
    oom = joined.submit("--", "ulimit -v 400000; python -c 'x = bytearray(1 << 40)'")
    until(lambda: joined.state(oom) == "FAILED")
    assert joined.job(oom)["cause"] == "oom"
    assert "out of memory" in joined.job(oom)["message"]

    # Three different jobs meet a full disk on one node, and each goes on on another.
    run = f"if [ $GPUSCHED_NODE = {A} ]; then echo 'write: No space left on device'; exit 1; fi"
    failed = []
    for _ in range(20):
        if nodes(joined)[A]["state"] == "cordoned":
            break
        job = joined.submit("--gpus", "1", "--", run)
        until(lambda job=job: joined.state(job) in {"FAILED", "SUCCEEDED"})
        failed += [job] if joined.state(job) == "FAILED" else []
    node = until(lambda: (found := nodes(joined)[A]) and found["state"] == "cordoned" and found)
    assert len(failed) == 3
    assert "3 different jobs failed here" in node["why"]
    assert all(f"job {job} attempt 1" in node["why"] for job in failed)
    after = joined.submit("--gpus", "1", "--", run)
    until(lambda: joined.state(after) == "SUCCEEDED")
    told = json.loads(joined.gpusched("nodes", A, "-o", "json"))
    assert "No space left on device" in json.dumps(told)

    # A waiting job is told of it; and a word of an administrator ends it, evidence and all.
    wide = joined.submit("--gpus", "2", "--num-nodes", "3", "--", "true")
    explained = until(lambda: (said := joined.gpusched("explain", wide)) and "cordon" in said and said)
    assert A in explained
    joined.gpusched("resume", A)
    until(lambda: joined.state(wide) == "SUCCEEDED")
    once = joined.submit("--gpus", "1", "--", run)
    until(lambda: joined.state(once) in {"FAILED", "SUCCEEDED"})
    assert nodes(joined)[A]["state"] != "cordoned"
