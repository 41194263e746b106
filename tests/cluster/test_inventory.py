"""A cluster is named as NxG, NxG:TYPE,... or by a file of nodes; a wrong one is refused by row or line."""

import gzip
import os
from pathlib import Path

import pytest

from gpusched.cluster.backend import Node
from gpusched.cluster.inventory import UNSTATED_CPU_MILLI, UNSTATED_MEMORY, read_cluster
from gpusched.jobs.errors import SpecError, TraceError


def test_nodes_by_gpus_are_named_in_the_order_of_their_names():
    nodes = read_cluster("54x8")
    assert len(nodes) == 54
    assert nodes[0] == Node("node-00", 8, "", UNSTATED_CPU_MILLI, UNSTATED_MEMORY)
    assert [node.name for node in nodes] == sorted(node.name for node in nodes)


def test_groups_of_nodes_have_types():
    nodes = read_cluster("2x8:H100, 1x4:A100-80GB,1X2")
    assert [(node.gpus, node.gpu_type) for node in nodes] == [(8, "H100"), (8, "H100"), (4, "A100-80GB"), (2, "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no cluster"),
        ("8", "'8' is no cluster"),
        ("54y8", "'54y8' is no cluster"),
        ("4x8,", "'4x8,' is no cluster"),
        ("-1x8", "'-1x8' is no cluster"),
        ("0x8", "0x8 is no cluster"),
        ("3x0", "3x0: has no GPU"),
        ("1x5000", "1x5000 is no cluster"),
        ("300000x8", "has 300,000 nodes"),
        ("nodes.yaml", "nodes.yaml: no such file"),
    ],
)
def test_what_is_no_cluster_is_refused(text, message):
    with pytest.raises(TraceError) as caught:
        read_cluster(text)
    assert message in caught.value.message
    assert caught.value.hint


def test_a_yaml_of_nodes_is_read(tmp_path):
    path = tmp_path / "nodes.yaml"
    path.write_text(
        "nodes:\n"
        "- {name: big, count: 2, gpus: 8, gpu_type: H100, cpus: 96, memory: 1TB, labels: {rack: a, zone: 'b;c=d'}}\n"
        "- {gpus: 4}\n"
    )
    labels = {"rack": "a", "zone": "b;c=d"}
    assert read_cluster(str(path)) == [
        Node("big-0", 8, "H100", 96000, 10**12, labels),
        Node("big-1", 8, "H100", 96000, 10**12, labels),
        Node("node-0002", 4, "", UNSTATED_CPU_MILLI, UNSTATED_MEMORY),
    ]


def test_every_problem_of_a_yaml_is_named_with_its_line(tmp_path):
    path = tmp_path / "nodes.yaml"
    path.write_text(
        "nodes:\n- {gpu: 8}\n- {gpus: 4.5}\n- 7\n- {gpus: 1, name: a}\n- {gpus: 1, name: a}\n- {gpus: [1]}\n"
    )
    with pytest.raises(SpecError) as caught:
        read_cluster(str(path))
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (2, "nodes[0].gpu"), (3, "nodes[1].gpus"), (4, "nodes[2]"), (6, "nodes[4].name"), (7, "nodes[5].gpus")
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["nodes: 5\n", "a: &a [*a]\n", "{", "nodes: []\n", "\x01"])
def test_a_yaml_that_is_no_list_of_nodes_is_refused(text, tmp_path):
    path = tmp_path / "nodes.yaml"
    path.write_text(text)
    with pytest.raises((SpecError, TraceError)) as caught:
        read_cluster(str(path))
    assert str(path) in str(caught.value)


def test_a_csv_of_nodes_is_read_packed_too(tmp_path):
    path = tmp_path / "nodes"
    path.write_bytes(
        gzip.compress(b"name,count,gpus,gpu_type,cpus,memory,labels\na,2,8,H100,96,1TB,rack=a;zone=b\nb,,4,,,,\n")
    )
    assert read_cluster(str(path)) == [
        Node("a-0", 8, "H100", 96000, 10**12, {"rack": "a", "zone": "b"}),
        Node("a-1", 8, "H100", 96000, 10**12, {"rack": "a", "zone": "b"}),
        Node("b", 4, "", UNSTATED_CPU_MILLI, UNSTATED_MEMORY),
    ]


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\n", Node("n0", 2, "P100", 64000, 262144 << 20)),
        (",machineId,number of GPUs\n0,m0,8\n", Node("m0", 8, "", UNSTATED_CPU_MILLI, UNSTATED_MEMORY)),
        (
            "machineId,number of GPUs, single GPU mem\nm1,2, 24GB\n",
            Node("m1", 2, "", UNSTATED_CPU_MILLI, UNSTATED_MEMORY),
        ),
        ("gpu_model,gpu_capacity_num,cpu_num,node_name\nA10,4,192,0\n", Node("0", 4, "A10", 192000, UNSTATED_MEMORY)),
    ],
)
def test_published_lists_of_machines_are_read(text, node, tmp_path):
    path = tmp_path / "nodes.csv"
    path.write_text(text)
    assert read_cluster(str(path)) == [node]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,eight,,", "row 2, column 'gpus': 'eight' is not a number"),
        ("a,-1,,", "row 2, column 'gpus': '-1' is negative"),
        ("a,4000,,", "row 2, column 'gpus': '4000' is absurdly large"),
        ("a,8,64,", "row 2, column 'memory': 64 has no unit"),
        ("a,8,,rack", "row 2, column 'labels': 'rack' is no label"),
        ("a,8", "row 2: has 2 fields, the header has 4"),
    ],
)
def test_a_wrong_row_is_refused_with_its_column(row, message, tmp_path):
    path = tmp_path / "nodes.csv"
    path.write_text("name,gpus,memory,labels\n" + row + "\n")
    with pytest.raises(TraceError) as caught:
        read_cluster(str(path))
    assert message in caught.value.message


def test_two_nodes_of_one_name_are_refused(tmp_path):
    path = tmp_path / "nodes.csv"
    path.write_text("name,gpus\na,8\na,8\n")
    with pytest.raises(TraceError, match="row 3, column 'name': 'a' is the name of two nodes"):
        read_cluster(str(path))


@pytest.mark.skipif("GPUSCHED_TRACES" not in os.environ, reason="GPUSCHED_TRACES names no folder of traces")
@pytest.mark.parametrize(
    ("file", "nodes", "gpus"),
    [
        ("alibaba-openb-2023/openb_node_list_all_node.csv.gz", 1523, 6212),
        ("alibaba-openb-2023/openb_node_list_gpu_node.csv.gz", 1213, 6212),
        ("philly-2017/revised_machine_list.csv", 552, 3205),
        ("cluster-specs/spot_node_info_df.csv.gz", 4278, 10412),
    ],
)
def test_real_lists_of_machines_have_their_gpus(file, nodes, gpus):
    cluster = read_cluster(str(Path(os.environ["GPUSCHED_TRACES"]) / file))
    assert (len(cluster), sum(node.gpus for node in cluster)) == (nodes, gpus)
