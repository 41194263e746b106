"""Chance that depends on what it is asked for and on nothing else.

Each number comes from a hash of the seed and of names (a node and the count of its failures, a job and its attempt). So
no order of asking changes any, one more job moves no other's, and two policies meet the same faults (common random
numbers). The hash and the rounding to milliseconds are the same on every machine.
"""

from __future__ import annotations

import math
from hashlib import blake2b


def uniform(seed: int, *names: str | int) -> float:
    """A number from 0 to below 1 for these names under this seed."""
    text = "\0".join(map(str, (seed, *names)))
    return (int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 11) / (1 << 53)


def exponential(mean: float, seed: int, *names: str | int) -> float:
    """Seconds until something happens that happens every `mean` seconds on average, to the millisecond."""
    return round(-mean * math.log1p(-uniform(seed, *names)), 3)
