"""Price certificates: stored, proven again, and refused when anything does not match; and the verbs that do so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name

from builders import cluster, job, trace
from gpusched.jobs.errors import CertificateError
from gpusched.jobs.traces.export import write_export
from gpusched.scheduler.bounds import lower_bounds, read_certificate, to_json, verify, write_certificate

SOURCE = Path(__file__).parents[2] / ".src"

JOBS = trace(
    *[job(f"{1 + number % 4} GPUs for {100 + 37 * number} s", at=13 * number) for number in range(12)],
    job("9 GPUs for 5 s", at=200),
).jobs


@pytest.fixture(scope="module")
def made():
    return lower_bounds(JOBS, cluster("1x4")).certificate


@pytest.fixture
def stored(made, tmp_path):
    """A certificate's file, and its document to be changed."""
    path = tmp_path / "bound.json"
    write_certificate(str(path), made)
    return path, json.loads(path.read_text())


def changed(stored, **values):
    path, document = stored
    path.write_text(json.dumps({**document, **values}))
    return read_certificate(str(path))


def test_what_is_stored_is_what_is_read(made, stored):
    assert read_certificate(str(stored[0])) == made
    assert made.left_out == (12,)
    assert made.jobs == 12


def test_a_certificate_proves_what_it_claims_and_hardly_more(made):
    proven = verify(made, JOBS)
    assert made.jct_mean <= proven <= made.jct_mean * (1 + 1e-8)
    assert made.jct_mean > sum(ask.duration for ask in JOBS[:12]) / 12  # more than the heights


def test_the_same_jobs_and_nodes_give_the_same_bytes(made):
    assert to_json(lower_bounds(JOBS, cluster("1x4")).certificate) == to_json(made)


def test_types_labels_and_rates_are_in_the_file(tmp_path):
    jobs = trace(*[job("2 H100 GPUs for 50 s, rack=a", at=number) for number in range(5)], job("2 GPUs for 70 s")).jobs
    nodes = cluster("1x2:H100@rack=a,zone=z 1x4:A100@rack=b")
    found = lower_bounds(jobs, nodes, {"H100": 1.5}).certificate
    path = tmp_path / "bound.json"
    write_certificate(str(path), found)
    again = read_certificate(str(path))
    assert again == found
    assert verify(again, jobs) >= found.jct_mean
    assert len(again.rows) == 2
    assert [group.labels for group in again.groups] == [(("rack", "a"),), (("rack", "b"),)]


# Refused ------------------------------------------------------------------------------------------------------------


def test_a_claim_that_is_too_high_is_refused(made, stored):
    claim = changed(stored, jct_mean=made.jct_mean * 1.001)
    with pytest.raises(CertificateError, match=r"claims a mean JCT of at least .* its prices prove only"):
        verify(claim, JOBS)


def test_a_claim_far_below_what_is_proven_is_refused_too(made, stored):
    with pytest.raises(CertificateError, match=r"prices prove a mean JCT of at least .* it claims"):
        verify(changed(stored, jct_mean=made.jct_mean * 0.9), JOBS)


@pytest.mark.parametrize("factor", [0, 0.5, 2])
def test_tampered_prices_are_refused(stored, factor):
    rows = [{**row, "prices_e9": [round(factor * price) for price in row["prices_e9"]]} for row in stored[1]["rows"]]
    with pytest.raises(CertificateError, match=r"the certificate claims .* prove only"):
        verify(changed(stored, rows=rows), JOBS)


def test_a_row_that_is_counted_twice_proves_nothing_more(stored):
    with pytest.raises(CertificateError, match="prove only"):
        verify(changed(stored, rows=stored[1]["rows"] * 2), JOBS)


def test_a_cluster_that_was_made_smaller_is_refused(stored):
    """Half of the GPUs would prove twice the bound: the jobs of four GPUs are then none that it could hold."""
    smaller = [{**group, "gpus": 2} for group in stored[1]["cluster"]]
    with pytest.raises(CertificateError, match="gpus is 4, but the nodes of its cluster have 2"):
        changed(stored, cluster=smaller)
    with pytest.raises(CertificateError, match="not one for this trace"):
        verify(changed(stored, cluster=smaller, gpus=2), JOBS)


@pytest.mark.parametrize(
    ("number", "change"),
    [(3, {"duration": 212}), (5, {"submitted": 64}), (0, {"shape": job("2 GPUs").shape})],
    ids=["longer", "earlier", "wider"],
)
def test_other_jobs_are_told_apart(made, number, change):
    jobs = [one._replace(**change) if one.id == number else one for one in JOBS]
    with pytest.raises(CertificateError, match="about other jobs"):
        verify(made, jobs)


def test_a_longer_and_a_shorter_trace_are_told_apart(made):
    for jobs in (JOBS[:-1], JOBS[1:], [*JOBS, JOBS[0]._replace(id=13)]):
        with pytest.raises(CertificateError, match="12 jobs of a trace of 13, this trace has"):
            verify(made, jobs)


def test_a_job_may_not_be_left_out_by_changing_the_list(made):
    with pytest.raises(CertificateError, match="12 jobs of a trace of 14"):
        verify(replace(made, left_out=(11, 12)), JOBS)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"breakpoints_us": [0, 5, 5]}, "breakpoints_us is not a list of two or more ascending whole numbers"),
        ({"breakpoints_us": [0, 1, 2]}, "rows is not a list of .* with a price of 0 or more for each slot"),
        ({"rows": [{"groups": [7], "prices_e9": []}]}, "rows is not"),
        ({"rows": [{"groups": [0]}]}, "rows: prices_e9 is missing"),
        ({"jct_mean": "much"}, "jct_mean is not a number of seconds"),
        ({"jct_mean": float("nan")}, "jct_mean is not a number of seconds"),
        ({"jobs": -1}, "jobs is not a whole number"),
        ({"left_out": [1.5]}, "left_out is not a list of whole numbers"),
        ({"rates": {"H100": 0}}, "rates is not numbers above 0 by GPU type"),
        ({"cluster": [{"nodes": 1}]}, "cluster: gpus is missing"),
        ({"cluster": 4}, "cluster is not a list of"),
        ({"gpusched_price_certificate": 99}, "version 99, not 1"),
    ],
)
def test_a_file_with_a_fault_is_named_with_its_key(stored, values, said):
    with pytest.raises(CertificateError, match=rf"bound\.json: .*{said}"):
        changed(stored, **values)


def test_a_negative_price_is_refused(stored):
    rows = [{**row, "prices_e9": [-1, *row["prices_e9"][1:]]} for row in stored[1]["rows"]]
    with pytest.raises(CertificateError, match="a price of 0 or more"):
        changed(stored, rows=rows)


def test_a_key_that_is_missing_is_named(stored):
    path, document = stored
    del document["rows"]
    path.write_text(json.dumps(document))
    with pytest.raises(CertificateError, match=r"bound\.json: rows is missing"):
        read_certificate(str(path))


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", "\udcff"], ids=["empty", "text", "list", "map", "bytes"])
def test_a_file_that_is_no_certificate_is_said_to_be_none(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CertificateError, match=r"other\.json: is no (JSON|price certificate)"):
        read_certificate(str(path))


# The verbs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def traced(cli):  # noqa: F811 - the fixture
    for name, jobs in (("trace.csv", JOBS), ("other.csv", JOBS[:-2])):
        write_export(str(cli.folder / name), jobs)
    return cli


def test_a_bound_is_computed_stored_and_verified(traced):
    said = traced("bound", "compute", "trace.csv", "--nodes", "1x4", "--certificate", "bound.json")
    assert "12 jobs (1 left out: no node could hold it)" in said.stdout
    assert re.search(r"L5 price certificate .* s .*\*", said.stdout)
    assert said.stderr == "wrote bound.json\n"
    proof = traced("bound", "verify", "bound.json", "trace.csv").stdout
    assert "12 jobs of trace.csv, 1 left out" in proof
    assert "on 4 GPUs has a mean JCT below" in proof


def test_machines_get_json(traced):
    found = json.loads(traced("bound", "compute", "trace.csv", "--nodes", "1x4", "-o", "json").stdout)
    assert set(found["jct_mean"]) == {"best", "L1", "L2", "L3", "L5"}
    assert found["jct_mean"]["best"] == max(value for key, value in found["jct_mean"].items() if key != "best")
    assert (found["jobs"], found["left_out"], found["gpus"]) == (12, ["job-13"], 4)
    traced("bound", "compute", "trace.csv", "--nodes", "1x4", "--certificate", "bound.json", "-o", "json")
    proof = json.loads(traced("bound", "verify", "bound.json", "trace.csv", "-o", "json").stdout)
    assert proof["claimed"] <= proof["proven"] <= proof["claimed"] * (1 + 1e-8)


def test_a_mismatch_ends_with_one_message_and_1(traced):
    traced("bound", "compute", "trace.csv", "--nodes", "1x4", "--certificate", "bound.json")
    said = traced("bound", "verify", "bound.json", "other.csv", code=1).stderr
    assert "error: the certificate is about 12 jobs of a trace of 13, this trace has 11" in said
    path = traced.folder / "bound.json"
    path.write_text(re.sub(r'"jct_mean": [\d.]+', '"jct_mean": 99999.5', path.read_text()))
    said = traced("bound", "verify", "bound.json", "trace.csv", code=1).stderr
    assert "claims a mean JCT of at least 99,999.5 s, its prices prove only" in said
    assert "no such file" in traced("bound", "verify", "none.json", "trace.csv", code=1).stderr.lower()


def test_a_certificate_that_cannot_be_written_is_said_so(traced):
    said = traced("bound", "compute", "trace.csv", "--nodes", "1x4", "--certificate", "no/where.json", code=1).stderr
    assert "no/where.json: cannot be written" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "say on which cluster: --nodes 54x8, or --cluster FILE"),
        (["--nodes", "1x4", "--cluster", "nodes.yaml"], "give --nodes or --cluster, not both"),
        (["--nodes", "1x4", "--rate", "H100=0"], "'H100=0' is not TYPE=RATE"),
        (["--nodes", "1x4", "--rate", "H100"], "'H100' is not TYPE=RATE"),
    ],
)
def test_a_mistake_in_the_options_gets_one_message(traced, options, said):
    assert said in traced("bound", "compute", "trace.csv", *options, code=2).stderr


def test_the_proof_needs_no_numpy(traced):
    traced("bound", "compute", "trace.csv", "--nodes", "1x4", "--certificate", "bound.json")
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from gpusched.scheduler.cli import main\n"
        "main(['bound', 'verify', 'bound.json', 'trace.csv'])\n"
    )
    environment = {**traced.environment, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=traced.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "proven" in done.stdout
