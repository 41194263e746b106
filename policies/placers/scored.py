"""Placements by score, and those by chance."""

from __future__ import annotations

from typing import Literal

from ...cluster.pool import Pool, bits
from ...jobs.job import Piece, Placement, Shape
from .gangs import pick, place_gang
from .rooms import Room, Rooms, Score, rooms_of
from .scores import anywhere

Ties = Literal["name", "random"]
_WORD = (1 << 64) - 1


class Scored:
    """Each piece of a gang on the node with the highest score.

    Args:
        score: of a node that holds the piece, the higher the better.
        ties: between equal nodes, the one with the smallest `name`, or one at `random`: a draw that follows from the
            seed, the job's shape and all that is free, so that the same question has the same answer.
        seed: of the draws.
    """

    def __init__(self, score: Score, *, ties: Ties = "name", seed: int = 0) -> None:
        self.score = score
        self.ties: Ties = ties
        self.seed = seed

    def varied(self, *, ties: Ties = "name", seed: int = 0) -> Scored:
        """The same rule with other ties or another seed, as in `vector_best_fit?ties=random&seed=3`."""
        return Scored(self.score, ties=ties, seed=seed)

    def __call__(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """A placement on `nodes` (a bit set), whole, or None when it does not fit now."""
        return place_gang(shape, pool, nodes, self._one)

    def _one(self, piece: Shape, pool: Pool, nodes: int) -> Piece | None:
        rooms = rooms_of(pool)
        best = rooms.ranking(self.score, piece).best(nodes)
        if not best:
            return None
        number = self._tied(best, rooms, piece)
        if not piece.gpu_milli:
            return Piece(number, piece.gpus)
        return Piece(number, 0, piece.gpu_milli, self._slot(rooms.rooms[number], piece, rooms))

    def _tied(self, best: int, rooms: Rooms, piece: Shape) -> int:
        """One of several equal nodes."""
        if best & (best - 1) == 0 or (self.ties == "name" and rooms.in_name_order):
            return (best & -best).bit_length() - 1
        if self.ties == "random":
            return pick(best, draw(self.seed, rooms, piece) % best.bit_count())
        return min((rooms.rooms[number].name, number) for number in bits(best))[1]

    def _slot(self, room: Room, piece: Shape, rooms: Rooms) -> int:  # noqa: ARG002 - the rule by chance needs them
        """The GPU with the least sufficient part free; one that is free when none that is shared has enough."""
        return next(
            (slot for part, slot in zip(room.parts, room.slots, strict=True) if part >= piece.gpu_milli),
            room.unused_slot(),
        )


class Chance(Scored):
    """Any node that holds the piece, each as likely, and on it any GPU that does."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(anywhere, ties="random", seed=seed)

    def varied(self, *, ties: Ties = "random", seed: int = 0) -> Scored:  # noqa: ARG002 - its ties are its rule
        """The same rule from another seed."""
        return Chance(seed)

    def _slot(self, room: Room, piece: Shape, rooms: Rooms) -> int:
        shared = [slot for part, slot in zip(room.parts, room.slots, strict=True) if part >= piece.gpu_milli]
        position = draw(~self.seed, rooms, piece) % (len(shared) + room.free)
        return shared[position] if position < len(shared) else room.unused_slot()


def draw(seed: int, rooms: Rooms, piece: Shape) -> int:
    """64 bits that look random and follow from the arguments (the finalizer of SplitMix64, Steele et al. 2014)."""
    word = hash((seed, rooms.digest, piece.gpus, piece.gpu_milli, piece.cpu_milli, piece.memory)) & _WORD
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
