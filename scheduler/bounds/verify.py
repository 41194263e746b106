"""Prove a certificate's bound again, exactly, without the code that found it: whole numbers only, no numpy, no solver.

For every job the least that it can pay is found by walking over the slots that could be worth its while, in O(slots)
and a sort of those; the sum of these, less the price of the whole capacity, plus half of each length, is proven.

Units: time in microseconds, GPUs in thousandths, prices in thousand-millionths per GPU. A product of the three is a
"fine" unit, FINE of which are a microsecond of completion time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

from ...jobs.errors import CertificateError, TraceError
from ...jobs.traces.trace import TraceJob
from .certificate import Certificate
from .instance import SECOND, WHOLE, Instance, of_groups

PRICE = 1_000_000_000
FINE = WHOLE * PRICE
MARGIN = Fraction(1, 1_000_000)
"""Share by which more may be proven than is claimed. A greater gap means that claim and prices are not of one make."""


def verify(certificate: Certificate, jobs: Sequence[TraceJob]) -> Fraction:
    """What the certificate proves of these jobs' mean JCT, in seconds, exactly.

    Args:
        certificate: as `read_certificate` gives it.
        jobs: the whole trace, as a reader yields it.

    Raises:
        CertificateError: it is about other jobs, or its prices prove less than it claims, or much more.
    """
    left_out = set(certificate.left_out)
    kept = [job for job in jobs if job.id not in left_out]
    if len(kept) != certificate.jobs or len(jobs) - len(kept) != len(left_out):
        raise CertificateError(
            f"the certificate is about {_jobs(certificate.jobs)} of a trace of "
            f"{certificate.jobs + len(left_out):,}, this trace has {len(jobs):,}",
            hint=_OTHER,
        )
    try:
        whole = of_groups(kept, certificate.groups, certificate.rates, certificate.left_out)
    except TraceError as error:
        raise CertificateError(
            f"the certificate's cluster is not one for this trace: {error.message}", hint=_OTHER
        ) from error
    if whole.digest() != certificate.digest:
        raise CertificateError(
            "the certificate is about other jobs: this trace's differ in times, sizes or GPU types",
            hint=_OTHER,
        )
    proven = exact_bound(whole, certificate.edges, certificate.rows)
    claimed = Fraction(certificate.jct_mean)
    if claimed > proven:
        raise CertificateError(
            f"the certificate claims a mean JCT of at least {certificate.jct_mean:,} s, "
            f"its prices prove only {float(proven):,.6f} s",
            hint="the claim or the prices were changed; compute it again",
        )
    if claimed < proven * (1 - MARGIN):
        raise CertificateError(
            f"the certificate's prices prove a mean JCT of at least {float(proven):,.6f} s, "
            f"it claims {certificate.jct_mean:,} s",
            hint="the claim or the prices were changed; compute it again",
        )
    return proven


_OTHER = "give the trace, and the options of reading it, that the certificate was made with"


def _jobs(count: int) -> str:
    return f"{count:,} job{'' if count == 1 else 's'}"


def exact_bound(
    whole: Instance, edges: Sequence[int], rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
) -> Fraction:
    """The lower bound on mean JCT, in seconds, that prices prove; 0 for no jobs."""
    if not whole.items:
        return Fraction(0)
    asked = []
    for may in whole.usable:
        paid = [prices for groups, prices in rows if set(may) <= set(groups)]
        asked.append([sum(prices) for prices in zip(*paid, strict=True)] if paid else [0] * (len(edges) - 1))
    total = 0
    for item in whole.items:
        half = item.length * FINE // 2
        total += half + (
            least_payment(item.release, item.length, item.area, edges, asked[item.may_use]) if item.area else half
        )
    for groups, prices in rows:
        widths = (after - before for before, after in pairwise(edges))
        total -= whole.capacity(groups) * sum(width * price for width, price in zip(widths, prices, strict=True))
    return max(Fraction(total, FINE * SECOND * len(whole.items)), Fraction(0))


def least_payment(release: int, length: int, area: int, edges: Sequence[int], asked: Sequence[int]) -> int:
    """The least that a job pays for `length` of time after its release, in fine units rounded down.

    A unit of time that begins t after the release costs t / length + GPUs x price. Buying all that costs less than
    some level / length is best, and every level proves the bound: level - integral of what is bought below it.
    """
    last = len(edges) - 1
    goal = length * FINE
    slot = bisect_right(edges, release) - 1
    offers: list[tuple[int, int]] = []  # (cost x length of the first unit of time, how much time), in fine units
    seen = dearest = 0
    latest = -1  # the level of running at once; what costs more is never bought
    while True:
        begin = max(edges[slot] - release, 0) if slot >= 0 else 0
        if 0 <= latest <= begin * FINE:
            break
        if slot == last:  # free for ever
            offers.append((begin * FINE, goal))
            break
        price = asked[slot] if slot >= 0 else 0
        room = edges[slot + 1] - release - begin
        cost = begin * FINE + area * price
        if latest < 0 or cost < latest:
            offers.append((cost, room * FINE))
        if latest < 0:
            seen += room
            dearest = max(dearest, price)
            if seen >= length:
                latest = goal + area * dearest
        slot += 1
    level = offers[0][0] + goal if len(offers) == 1 else _level(offers, goal)
    below = 0
    for cost, room in offers:
        deep = level - cost
        if deep > room:
            below += room * (2 * deep - room)
        elif deep > 0:
            below += deep * deep
    return (2 * goal * level - below) // (2 * goal)


def _level(offers: list[tuple[int, int]], goal: int) -> int:
    """The level below which the offers hold `goal` of time, rounded down."""
    turns = sorted([(cost, 1) for cost, _ in offers] + [(cost + room, -1) for cost, room in offers])
    bought = open_ = before = 0
    for at, turn in turns:
        more = open_ * (at - before)
        if bought + more >= goal:
            break
        bought += more
        open_ += turn
        before = at
    return before + (goal - bought) // max(open_, 1)
