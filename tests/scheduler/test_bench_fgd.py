"""The inflation experiment: a case worked out by hand, how pods are drawn, and the command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from click.testing import CliRunner

from gpusched.cluster.pool import WHOLE
from gpusched.jobs.errors import TraceError
from gpusched.jobs.job import Shape
from gpusched.policies.fragmentation import Fragmentation, TaskClass, classes_of
from gpusched.policies.place import PLACERS
from gpusched.scheduler.bench.fgd import RULES, Asked, rows, run
from gpusched.scheduler.bench.inflation import drawn, inflate, shuffled
from gpusched.scheduler.bench.openb import Inputs, milli, read_inputs
from gpusched.scheduler.bench.sample import write_sample
from gpusched.scheduler.cli.root import root

NODES = """sn,cpu_milli,memory_mib,gpu,model
b,8000,8192,2,G2
a,8000,8192,2,T4
cpu,8000,8192,0,
"""
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p2,4000,1024,1,1000,,LS,Running,0,0,0
p1,2000,1024,1,500,T4|T4|G2,LS,Running,9,12,
p3,1000,2048,0,0,T4,BE,Pending,5,7,
"""


def files(folder: Path, nodes: str = NODES, pods: str = PODS) -> tuple[str, str]:
    (folder / "nodes.csv").write_text(nodes)
    (folder / "pods.csv").write_text(pods)
    return str(folder / "nodes.csv"), str(folder / "pods.csv")


def dice(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - an experiment's seed, no secret


def inputs(tmp_path: Path, nodes: str = NODES, pods: str = PODS) -> Inputs:
    return read_inputs(*files(tmp_path, nodes, pods))


# Inputs --------------------------------------------------------------------------------------------------------------


def test_every_pod_counts_whenever_it_ran_and_nodes_without_a_gpu_do_not(tmp_path):
    found = inputs(tmp_path)
    assert [node.name for node in found.nodes] == ["a", "b"]
    assert found.capacity == 4 * WHOLE
    assert found.pods == (
        Shape(1, 0, 500, ("T4", "T4", "G2"), 2000, 1 << 30),
        Shape(1, 1, 0, (), 4000, 1 << 30),
        Shape(1, 0, 0, (), 1000, 2 << 30),  # who asks for no GPU goes anywhere
    )
    assert "1 nodes without a GPU left out" in found.notes[0]
    assert len(read_inputs(*files(tmp_path), cpu_nodes=True).nodes) == 3


@pytest.mark.parametrize(
    ("nodes", "pods", "says"),
    [
        ("sn,gpu\nx,0\n", PODS, "no node has a GPU"),
        (NODES, "name,cpu_milli,num_gpu,gpu_milli\np,1,0,0\n", "no pod asks for a GPU"),
        (NODES, "name,cpu_milli,num_gpu,gpu_milli\np,1,2,500\n", "pods.csv, row 2, column 'gpu_milli': 500 for 2 GPUs"),
        (NODES, "name,cpu_milli,num_gpu,gpu_milli\np,many,1,500\n", "pods.csv, row 2, column 'cpu_milli'"),
        (NODES, "name,num_gpu,gpu_milli\np,1,500\n", "no column 'cpu_milli'"),
    ],
)
def test_a_file_that_is_wrong_is_one_clear_message(tmp_path, nodes, pods, says):
    with pytest.raises(TraceError, match=says):
        inputs(tmp_path, nodes, pods)


# Drawing -------------------------------------------------------------------------------------------------------------


def test_all_pods_come_once_in_random_order_and_then_more_are_drawn():
    trace = tuple([Shape(1, 1, cpu_milli=number) for number in range(20)])
    found = drawn(Inputs((), trace, 30 * WHOLE), 1.3, dice(1))
    assert sorted(found[:20], key=lambda pod: pod.cpu_milli) == list(trace) != found[:20]
    assert len(found) == 39  # the 40th would ask for more than 1.3 x 30


def test_a_trace_that_asks_for_too_much_loses_pods_at_random():
    trace = tuple([Shape(1, 1, cpu_milli=number) for number in range(20)])
    found = drawn(Inputs((), trace, 10 * WHOLE), 1.3, dice(1))
    assert len(found) == 13
    assert set(found) < set(trace)


def test_the_last_draw_is_judged_by_one_of_its_gpus():
    """As with the authors: 8 GPUs more still come at 100 of 104."""
    trace = (Shape(1, 8),) * 2
    asked = sum(map(milli, drawn(Inputs((), trace, 80 * WHOLE), 1.3, dice(0))))
    assert asked == 104 * WHOLE
    assert sum(map(milli, drawn(Inputs((), trace, 76 * WHOLE), 1.3, dice(0)))) == 104 * WHOLE > 1.3 * 76 * WHOLE


def test_nodes_are_named_in_their_random_order(tmp_path):
    found = [shuffled(inputs(tmp_path).nodes, dice(seed)) for seed in range(8)]
    assert {tuple(node.name for node in nodes) for nodes in found} == {("0000-a", "0001-b"), ("0000-b", "0001-a")}


# The run -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["random", "gpu_packing", "vector_best_fit", "fgd"])
def test_a_run_worked_out_by_hand(tmp_path, rule):
    """One node of 2 GPUs; pods of 0.6 GPU, 6 of which make up 180 %. Each GPU takes one; four are dropped.

    After the first 30 % are allocated and 1.4 GPUs idle, 0.4 of them too small for a pod. After the second 60 % are
    allocated and the 0.8 idle are all fragments, and so it stays.
    """
    pods = "name,cpu_milli,num_gpu,gpu_milli\n" + "".join(f"p{number},0,1,600\n" for number in range(3))
    small = inputs(tmp_path, "sn,gpu\na,2\n", pods)
    found = inflate(small, PLACERS[rule], 1, Fragmentation((TaskClass(1, 0, 1, 600),)), load=1.8)
    assert (found.pods, found.dropped, found.allocation_at_end) == (6, 4, pytest.approx(0.6))
    for load, allocated, rate, fragments in [
        (30, 0.3, 2 / 7, 0.2),
        (60, 0.6, 1, 0.4),
        (90, 0.6, 1, 0.4),
        (180, 0.6, 1, 0.4),
    ]:
        assert found.allocation[load] == pytest.approx(allocated)
        assert found.fragmentation_rate[load] == pytest.approx(rate)
        assert found.fragments[load] == pytest.approx(fragments)
    assert found.allocation[29] == found.allocation[31] == pytest.approx(0.3)  # neighbours stand in
    assert found.allocation[28] is found.allocation[45] is None


def test_a_list_of_types_is_no_order_of_preference(tmp_path):
    """The pod may use both types: it goes where least is left over, on the type it names last."""
    nodes = "sn,cpu_milli,gpu,model\na,8000,8,A\nb,8000,1,B\n"
    pods = "name,cpu_milli,num_gpu,gpu_milli,gpu_spec\np,0,1,1000,A|B\n"
    small = inputs(tmp_path, nodes, pods)
    seen = []

    def place(shape, pool, allowed):
        found = PLACERS["vector_best_fit"](shape, pool, allowed)
        seen.append(found and pool.nodes[found[0].node].gpu_type)
        return found

    inflate(small, place, 1, Fragmentation(classes_of(small.pods)), load=0.2)
    assert seen == ["B"]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    sample = read_inputs(*map(str, write_sample(tmp_path)))
    asked = Asked(rules=("random", "fgd"), seeds=(1, 2))
    once, again = rows(run(sample, asked)), rows(run(sample, asked))
    assert once == again
    assert once[0]["runs"][0]["allocation_at_end"] != once[0]["runs"][1]["allocation_at_end"]
    assert once[1]["runs"][0]["pods"] == once[0]["runs"][0]["pods"]  # every rule gets the same pods


def test_fgd_allocates_more_than_chance_on_the_sample(tmp_path):
    sample = read_inputs(*map(str, write_sample(tmp_path)))
    by_rule = {row["rule"]: row for row in rows(run(sample, Asked(seeds=(1, 2, 3))))}
    assert by_rule.keys() == RULES.keys()
    ratio = {rule: row["allocation_at_full_load"]["mean"] for rule, row in by_rule.items()}
    assert ratio["fgd"] > ratio["random"] + 0.03


# The paper's own numbers ----------------------------------------------------------------------------------------------

TRACES = os.environ.get("GPUSCHED_TRACES", "")
PUBLISHED = {
    "random": 0.8747,
    "dot_product": 0.9085,
    "gpu_packing": 0.9200,
    "vector_best_fit": 0.9308,
    "fgd": 0.9539,
}
"""GPUs allocated at 130 %, means of the ten seeds in the authors' own results for the default trace."""


@pytest.mark.skipif(not TRACES, reason="GPUSCHED_TRACES names no folder of traces")
def test_the_default_trace_gives_the_numbers_of_the_authors():
    """Within half a percent of the GPUs on two seeds; their seeds differ by that much under the same rule."""
    folder = Path(TRACES) / "alibaba-openb-2023"
    openb = read_inputs(str(folder / "openb_node_list_gpu_node.csv.gz"), str(folder / "openb_pod_list_default.csv.gz"))
    assert (len(openb.nodes), openb.capacity, len(openb.pods)) == (1213, 6212 * WHOLE, 8152)
    assert len(classes_of(openb.pods)) == 35
    found = {row["rule"]: row for row in rows(run(openb, Asked(rules=tuple(PUBLISHED), seeds=(42, 43))))}
    for rule, published in PUBLISHED.items():
        assert found[rule]["allocation_at_end"]["mean"] == pytest.approx(published, abs=0.005)
    start, full = found["fgd"]["curve"][0], found["fgd"]["curve"][90]
    assert start["fragmentation_rate"]["mean"] == pytest.approx(0.139, abs=0.002)
    assert full["fragmentation_rate"]["mean"] == pytest.approx(0.50, abs=0.02)


# The command ----------------------------------------------------------------------------------------------------------


def call(*arguments: str):
    return CliRunner().invoke(root, ["bench", "fgd", *arguments])


def test_without_files_it_runs_on_a_sample_and_prints_the_six_rules():
    result = call("--seeds", "2")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "300 GPUs on 57 nodes, 400 pods to draw from"
    assert [line.split()[:2] for line in lines[2:]] == [list(pair) for pair in RULES.items()]
    assert " ± " in lines[2]


def test_machines_get_means_half_widths_runs_and_curves(tmp_path):
    nodes, pods = map(str, write_sample(tmp_path))
    asked = ("--nodes", nodes, "--pods", pods, "--seeds", "2", "--rules", "fgd,tetris", "-q")
    document = json.loads(call(*asked, "-o", "json").stdout)
    assert [row["rule"] for row in document["rules"]] == ["fgd", "tetris"]
    assert document["load"] == 1.3
    row = document["rules"][0]
    assert [one["seed"] for one in row["runs"]] == [42, 43]
    assert row["allocation_at_end"]["mean"] == pytest.approx(sum(one["allocation_at_end"] for one in row["runs"]) / 2)
    assert len(row["curve"]) == 131
    table = call(*asked, "-o", "csv").stdout.splitlines()
    assert table[0].startswith("rule,paper,seeds,allocation_at_full_load,allocation_at_full_load_half")
    curves = call(*asked, "--curves", "-o", "csv").stdout.splitlines()
    assert len(curves) == 1 + 2 * 131
    assert curves[0].split(",")[:4] == ["rule", "load", "allocation", "allocation_half"]


def test_the_page_and_the_figures_say_what_is_drawn(tmp_path):
    page, folder = tmp_path / "page.html", tmp_path / "figures"
    result = call("--seeds", "2", "--rules", "random,fgd", "--html", str(page), "--figures", str(folder), "-q")
    assert result.exit_code == 0
    assert {file.name for file in folder.iterdir()} == {"allocation.svg", "fragmentation_rate.svg"}
    for drawing in [(folder / "allocation.svg").read_text(), page.read_text()]:
        assert drawing.count("<polygon") == drawing.count("opacity") > 0
        assert "GPUs allocated (% of all)" in drawing
        assert "GPUs asked for so far (% of all)" in drawing
        assert ">FGD<" in drawing
    assert "src=" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--rules", "nope"), 3, "no placement named 'nope'"),
        (("--nodes", "only.csv"), 2, "give both --nodes and --pods"),
        (("--seeds", "0"), 2, "--seeds"),
        (("--nodes", "missing.csv", "--pods", "missing.csv"), 4, "missing.csv: no such file"),
        (("--html", "gone/page.html"), 1, "gone/page.html: cannot be written"),
    ],
)
def test_a_mistake_is_one_clear_message(cli, arguments, code, says):  # noqa: F811 - the fixture
    done = cli("bench", "fgd", *arguments, code=code)
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stdout == ""
