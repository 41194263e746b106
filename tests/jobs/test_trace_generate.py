"""Generated traces follow the distributions that they name, and the same options give the same bytes."""

import gzip
import io
import itertools
import statistics
import tracemalloc
from collections import Counter
from dataclasses import replace

import pytest

from gpusched.jobs.errors import TraceError
from gpusched.jobs.job import Shape
from gpusched.jobs.traces.catalog import read_trace
from gpusched.jobs.traces.export import write_export
from gpusched.jobs.traces.generate import EXAMPLE, EXAMPLE_OPTIONS, Options, generate
from gpusched.jobs.traces.mixes import MIXES, LogLinear, LogNormal


def as_text(options):
    file = io.StringIO()
    write_export(file, generate(options))
    return file.getvalue()


def test_the_shipped_trace_is_what_the_generator_makes():
    assert gzip.decompress(EXAMPLE.read_bytes()).decode() == as_text(EXAMPLE_OPTIONS)


def test_the_shipped_trace_is_small_and_reads_without_remarks():
    assert EXAMPLE.stat().st_size < 60_000
    trace = read_trace(EXAMPLE)
    assert len(trace.jobs) == EXAMPLE_OPTIONS.jobs == 2000
    assert trace.remarks() == []
    assert max(job.shape.gpus for job in trace.jobs) == 32
    assert {job.queue for job in trace.jobs} == {"research", "product"}


def test_the_same_options_give_the_same_bytes_and_another_seed_others():
    options = Options(jobs=500, seed=7, fractions=0.3, overestimate=2, arrivals="diurnal", mix="itp")
    assert as_text(options) == as_text(replace(options))
    assert as_text(options) != as_text(replace(options, seed=8))


def test_another_load_gives_the_same_jobs_at_other_times():
    light, heavy = (list(generate(Options(jobs=300, load=load))) for load in (0.5, 1.0))
    assert [(job.duration, job.shape, job.user) for job in light] == [
        (job.duration, job.shape, job.user) for job in heavy
    ]
    assert light[-1].submitted == pytest.approx(2 * heavy[-1].submitted, rel=0.01)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("arrivals", ["poisson", "diurnal"])
def test_the_load_is_as_asked(mix, arrivals):
    jobs = list(generate(Options(jobs=40_000, mix=mix, arrivals=arrivals, load=0.8, gpus=512)))
    work = sum(job.duration * job.shape.gpus for job in jobs)
    heavy_tail = 0.25 if mix == "philly" else 0.12
    assert work / (512 * jobs[-1].submitted) == pytest.approx(0.8, rel=heavy_tail)


@pytest.mark.parametrize("mix", MIXES)
def test_sizes_have_the_shares_of_the_mix(mix):
    count = Counter(job.shape.gpus for job in generate(Options(jobs=20_000, mix=mix, gpus=512)))
    for gpus, share, _ in MIXES[mix].sizes:
        assert count[gpus] / 20_000 == pytest.approx(share, abs=0.012)
    assert sum(share for _, share, _ in MIXES[mix].sizes) == pytest.approx(1)


def test_run_times_have_the_median_of_their_distribution():
    ones = [job.duration for job in generate(Options(jobs=20_000, mix="helios")) if job.shape.gpus == 1]
    assert statistics.median(ones) == pytest.approx(321, rel=0.1)
    assert max(ones) == 172800


def test_quantiles_are_those_of_the_named_distributions():
    assert LogNormal(100, 2).at(0.5) == pytest.approx(100)
    assert LogNormal(100, 2, least=50, most=200).at(1e-9) == 50
    assert LogNormal(100, 2, least=50, most=200).at(1 - 1e-9) == 200
    knots = LogLinear(((0, 10), (0.8, 1000), (1, 10_000)))
    assert [knots.at(u) for u in (0, 0.4, 0.8, 0.9, 1)] == pytest.approx([10, 100, 1000, 1000 * 10**0.5, 10_000])


def test_arrivals_are_exponential_or_have_nights():
    gaps = [b.submitted - a.submitted for a, b in itertools.pairwise(generate(Options(jobs=5000, gpus=8)))]
    assert statistics.pstdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.1)
    hours = Counter(
        job.submitted // 3600 % 24 for job in generate(Options(jobs=20_000, gpus=512, arrivals="diurnal", mix="gavel"))
    )
    assert hours[16] > 5 * hours[4]


def test_no_job_asks_for_more_than_the_cluster_has():
    assert {job.shape.gpus for job in generate(Options(jobs=2000, mix="itp", gpus=4))} == {1, 2, 4}


def test_fractions_users_queues_and_estimates_are_drawn_as_asked():
    jobs = list(generate(Options(jobs=5000, fractions=0.4, users=3, queues=("a", "b"), overestimate=1)))
    small = [job.shape for job in jobs if job.shape.gpus <= 1]
    share = sum(shape in (Shape(gpu_milli=250), Shape(gpu_milli=500)) for shape in small) / len(small)
    assert share == pytest.approx(0.4, abs=0.03)
    count = Counter((job.user, job.queue) for job in jobs)
    assert set(count) == {("user-1", "a"), ("user-2", "b"), ("user-3", "a")}
    assert count["user-1", "a"] / count["user-2", "b"] == pytest.approx(2, rel=0.1)
    assert all(job.estimate >= job.duration for job in jobs)
    over = [job.estimate / job.duration - 1 for job in jobs]
    assert statistics.fmean(over) == pytest.approx(1, rel=0.1)


def test_exact_estimates_and_none_can_be_had():
    assert all(job.estimate == job.duration for job in generate(Options(jobs=50, overestimate=0)))
    assert all(job.estimate is None for job in generate(Options(jobs=50)))


def test_jobs_come_one_at_a_time():
    stream = generate(Options(jobs=100_000_000))
    tracemalloc.start()
    for job in itertools.islice(stream, 20_000):
        last = job
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert last.id == 19_999
    assert size < 300_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "--jobs is 0"),
        ({"load": 0}, "--load is 0"),
        ({"load": float("nan")}, "--load is nan"),
        ({"gpus": -1}, "--gpus is -1"),
        ({"mix": "gravel"}, "--mix is 'gravel': give one of gavel, helios, philly, itp"),
        ({"arrivals": "daily"}, "--arrivals is 'daily'"),
        ({"users": 0}, "--users is 0"),
        ({"queues": ()}, "--queues names no queue"),
        ({"fractions": 1.5}, "--fractions is 1.5"),
        ({"overestimate": -1}, "--overestimate is -1"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(options, message):
    with pytest.raises(TraceError, match=message):
        generate(Options(**options))
