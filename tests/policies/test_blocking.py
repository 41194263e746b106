"""Who waits for whom: small queues under each blocking rule, and the exact rules of the named policies."""

from __future__ import annotations

from builders import World, after, cluster, job
from gpusched.policies.catalog import load
from gpusched.policies.named.basic import AGE_LIMIT
from gpusched.policies.plan import Token


def running(world: World) -> list[int]:
    return [one.id for one in world.running()]


def why(world: World, number: int) -> tuple[str, float, float, int, int]:
    """(token, needs, free, largest, behind) last given to a job's group."""
    reason = world.engine.queue.group_of(world.jobs[number]).why
    assert reason is not None
    return (str(reason.token), *reason[1:])


def test_fifo_lets_nobody_pass_a_blocked_head():
    world = World(cluster("1x8"), "fifo")
    world.submit(job("6 GPUs"), job("4 GPUs"), job("1 GPU"))
    assert running(world) == [1]
    assert why(world, 2) == (Token.INSUFFICIENT_GPUS, 4, 2, 2, 0)
    assert why(world, 3) == (Token.PRIORITY, 1, 2, 2, 2)


def test_fifo_lets_a_job_pass_that_could_never_run():
    world = World(cluster("1x8"), "fifo")
    world.submit(job("9 GPUs"), job("4 H100 GPUs"), job("1 GPU"))
    assert running(world) == [3]
    assert why(world, 1)[0] == Token.INFEASIBLE
    assert why(world, 2)[0] == Token.INFEASIBLE


def test_binpack_passes_over_what_does_not_fit():
    world = World(cluster("1x8"), "binpack")
    world.submit(job("6 GPUs"), job("4 GPUs"), job("1 GPU"), job("2 GPUs"))
    assert running(world) == [1, 3]


def test_binpack_blocks_behind_a_job_that_waited_a_day():
    world = World(cluster("1x8"), "binpack")
    world.submit(job("6 GPUs"), job("4 GPUs"))
    world.tick(at=AGE_LIMIT - 1)
    world.submit(job("1 GPU"))
    assert running(world) == [1, 3]
    world.tick(at=AGE_LIMIT)
    world.submit(job("1 GPU, priority 51"))
    assert running(world) == [1, 3]
    assert why(world, 4)[0] == Token.PRIORITY
    assert why(world, 4)[4] == 2


def test_an_old_job_blocks_only_those_that_compete_for_its_nodes():
    world = World(cluster("1x8:H100 1x8:A100"), "binpack")
    world.submit(job("6 H100 GPUs"), job("4 H100 GPUs"))
    world.tick(at=AGE_LIMIT)
    world.submit(job("1 H100 GPU"), job("1 A100 GPU"), job("1 GPU"))
    assert running(world) == [1, 4, 5]


def test_gang_lets_narrow_jobs_pass_where_they_cannot_delay_the_wide_one():
    """Nodes n0 and n1 are earmarked for the wide gang; narrow jobs start on n2 only."""
    world = World(cluster("3x8"), "gang")
    world.submit(job("4 GPUs"), job("5 GPUs"), job("6 GPUs"))  # n0: 4 free, n1: 3, n2: 2
    world.submit(job("16 GPUs in total"), *[job("1 GPU")] * 4)
    assert running(world) == [1, 2, 3, 5, 6]
    assert {world.jobs[number].placement[0].node for number in (5, 6)} == {2}
    assert why(world, 7)[0] == Token.RESERVED_FOR_OTHER
    world.finished(1)
    world.finished(2)
    assert 4 in running(world)


def test_gang_is_strict_inside_a_size_class():
    """3 and 4 GPUs are one class: the 3 GPUs that are free are not given past the job that waits for 4."""
    world = World(cluster("2x8"), "gang")
    world.submit(job("5 GPUs"), job("5 GPUs"), job("4 GPUs"), job("3 GPUs"), job("2 GPUs"))
    assert running(world) == [1, 2, 5]
    assert why(world, 4) == (Token.PRIORITY, 3, 6, 3, 3)


def test_gang_keeps_the_class_blocked_for_those_that_come_later():
    world = World(cluster("2x8"), "gang")
    world.submit(job("5 GPUs"), job("5 GPUs"), job("4 GPUs"))
    world.submit(job("3 GPUs"))
    assert running(world) == [1, 2]


def test_a_job_that_needs_no_gpu_keeps_off_earmarked_nodes_also_when_no_gpu_is_left():
    """No GPU is free, so the second wide gang is not tried; the nodes it waits for are its own all the same."""
    world = World(cluster("2x4+8cpu"), "gang")
    world.submit(job("4 GPUs"), job("3 GPUs"), job("4 GPUs"), job("3 GPUs, 8 CPUs"), job("1 GPU, 1 CPUs"))
    assert running(world) == [1, 2]
    world.submit(job("no GPU, 8 CPUs"))
    assert running(world) == [1, 2]
    anew = World(cluster("2x4+8cpu"), "gang")
    anew.submit(job("4 GPUs"), job("3 GPUs"))
    anew.submit(job("4 GPUs"), job("3 GPUs, 8 CPUs"), job("1 GPU, 1 CPUs"), job("no GPU, 8 CPUs"))
    assert running(anew) == running(world)


def test_gang_earmarks_nodes_that_can_hold_the_gang():
    """n0 has the most GPUs free and too few CPUs: earmarking it would help nobody."""
    world = World(cluster("1x8+4cpu 1x8+64cpu"), "gang")
    world.submit(job("1 GPU, 8 CPUs"), job("8 GPUs, 16 CPUs"), job("1 GPU"), job("8 GPUs"))
    assert running(world) == [1, 3]
    assert world.jobs[3].placement[0].node == 0


def test_shortest_first_orders_by_what_is_said_of_run_times():
    world = World(cluster("1x8"), "shortest+first_fit+strict")
    world.submit(job("8 GPUs for 50 s"))
    world.submit(job("8 GPUs for 50 s"), job("8 GPUs for 10 s"), job("8 GPUs for 20 s"))
    world.finished(1)
    assert running(world) == [3]


def test_priority_goes_first_and_passes_nobody_that_runs():
    world = World(cluster("1x8"), "priority+best_fit+strict")
    world.submit(job("8 GPUs"))
    world.submit(job("8 GPUs, priority 10"), job("8 GPUs, priority 90"))
    assert running(world) == [1]
    world.finished(1)
    assert running(world) == [3]


def test_why_tells_the_most_fundamental_reason_with_its_numbers():
    world = World(cluster("2x8:H100+8cpu+64gb 1x4:A100+8cpu+64gb"), "binpack")
    world.submit(job("6 H100 GPUs, 4 CPUs"), job("6 H100 GPUs, 2 CPUs"))
    waits = {
        "8 H100 GPUs": (Token.GPU_TYPE_BUSY, 8, 4, 2, 0),
        "3 H100 GPUs": (Token.FRAGMENTED, 3, 4, 2, 0),
        "9 GPUs in total": (Token.INSUFFICIENT_GPUS, 9, 8, 4, 0),
        "1 H100 GPU, 7 CPUs": (Token.INSUFFICIENT_CPUS, 1, 4, 2, 0),
        "1 V100 GPU": (Token.INFEASIBLE, 1, 0, 0, 0),
        "1 GPU, rack=z": (Token.INFEASIBLE, 1, 0, 0, 0),
    }
    jobs = world.submit(*[job(words) for words in waits])
    assert {words: why(world, one.id) for words, one in zip(waits, jobs, strict=True)} == waits


def test_a_job_that_only_a_cordoned_node_could_hold_is_told_so_and_holds_up_nobody():
    world = World(cluster("1x8 1x4"), "fifo")
    world.change("n0", schedulable=False, why="cordoned")
    world.submit(job("8 GPUs"), job("1 GPU"))
    assert running(world) == [2]
    assert why(world, 1)[0] == Token.NODES_DRAINING
    world.change("n0", schedulable=False, why="its agent does not answer")
    assert why(world, 1)[0] == Token.NODES_UNHEALTHY
    world.change("n0", schedulable=True, why="")
    assert running(world) == [1, 2]


def test_a_blocked_head_that_becomes_impossible_lets_the_others_go():
    """The last node that could hold it leaves: from then on it holds up nobody."""
    world = World(cluster("1x8 1x4"), "fifo")
    world.submit(job("8 GPUs"), job("8 GPUs"), job("4 GPUs"))
    assert running(world) == [1]
    world.change("n0", gone=True)
    assert 3 in running(world)
    assert why(world, 2)[0] == Token.INFEASIBLE


def test_cancelling_or_holding_the_head_lets_the_next_go():
    world = World(cluster("1x8"), "fifo")
    world.submit(job("6 GPUs"), job("4 GPUs"), job("4 GPUs"), job("1 GPU"))
    world.cancel(2)
    assert running(world) == [1]
    world.hold(3)
    assert running(world) == [1, 4]
    world.release(3)
    world.finished(1)
    assert running(world) == [3, 4]


def test_after_makes_a_later_arrival():
    (late,) = after(5, job("1 GPU", at=2))
    assert late.at == 7


def test_a_policy_says_its_blocking_rule_in_its_name_or_on_request():
    """Two rules under one name made the peers' FIFO differ by a factor of two."""
    assert load("fifo").blocking.name == "strict"
    assert load("binpack").blocking.name == "skip, 24 h age limit"
    assert "strict in its size class" in load("gang").blocking.name
    assert load("arrival+best_fit+skip").name == "arrival+best_fit+skip"
