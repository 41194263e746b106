"""The menu of orders: those of one function, and those with options, as they are named in compositions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from .artifact import Artifact
from .attained import LeastAttained
from .gittins import Gittins
from .options import Duration
from .order import ORDERS as BY_KEY
from .order import KeyOf, Order
from .predict import Predicted
from .remaining import Remaining, fewest_gpus

HOUR = 3600.0
NODE_HOUR = 8 * HOUR
"""GPU-seconds that a node of 8 GPUs gives in an hour."""
QUEUE_LIMITS = (3250.0, 7200.0)
"""GPU-seconds at which a job leaves the first and the second queue, in the original repository of Tiresias."""
DELTA = 3250.0
"""The allowance of its Gittins index, in GPU-seconds."""
RANK_STEP = 600.0
"""GPU-seconds after which a running job is ranked anew; then each time that they have doubled."""


def srtf(*, margin: Duration = 0.0, aging: float = 0.0) -> Order:
    """The least remaining run time first; see `remaining.Remaining`."""
    return Remaining(margin=margin, aging=aging)


def srsf(*, margin: Duration = 0.0, aging: float = 0.0) -> Order:
    """The least remaining run time x GPUs first; see `remaining.Remaining`."""
    return Remaining(by_gpus=True, margin=margin, aging=aging)


def las(*, step: Duration = HOUR, promote: float = 0.0) -> Order:
    """The least attained wall time first, compared in steps; see `attained.LeastAttained`."""
    return LeastAttained(step=step, by_gpus=False, promote=promote)


def las_2d(*, step: Duration = NODE_HOUR, promote: float = 0.0) -> Order:
    """The least attained GPU time first, compared in steps."""
    return LeastAttained(step=step, promote=promote)


def tiresias(
    *,
    limits: tuple[Duration, ...] = QUEUE_LIMITS,
    promote: float = 0.0,
    wake: Literal["crossing", "tiresias-artifact"] = "crossing",
) -> Order:
    """Attained GPU time in as many queues as there are limits, and one; see `attained.LeastAttained`.

    `wake=tiresias-artifact` takes the demotions and wake-ups of the published simulator, see `artifact`; it promotes
    nobody.
    """
    return Artifact(limits) if wake == "tiresias-artifact" else LeastAttained(limits=limits, promote=promote)


def gittins(
    *,
    limits: tuple[Duration, ...] = QUEUE_LIMITS,
    delta: Duration = DELTA,
    step: Duration = RANK_STEP,
    promote: float = 0.0,
) -> Order:
    """As `tiresias`, and inside a queue by the Gittins index over `delta` GPU-seconds; infinity = the supremum."""
    return LeastAttained(limits=limits, promote=promote, gittins=Gittins(delta, step=step))


def _plain(key: KeyOf) -> Callable[[], KeyOf]:
    return lambda: key


ORDERS: dict[str, Callable[..., Order | KeyOf]] = {
    **{name: _plain(key) for name, key in BY_KEY.items()},
    "srtf": srtf,
    "srsf": srsf,
    "smallest": _plain(fewest_gpus),
    "las": las,
    "las-2d": las_2d,
    "tiresias": tiresias,
    "gittins": gittins,
    "qssf": Predicted,
}
"""Name -> a factory; its keyword arguments are the order's options."""
