"""Placements by score: every node that has room is scored, and the best one takes the piece."""

from .fgd import Fgd
from .scored import Chance, Scored
from .scores import (
    balanced,
    best_fit,
    dot_product,
    gpu_clustering,
    gpu_packing,
    most_allocated,
    tetris,
    worst_fit,
)

SCORED: dict[str, Scored] = {
    "vector_best_fit": Scored(best_fit),
    "vector_worst_fit": Scored(worst_fit),
    "most_allocated": Scored(most_allocated),
    "balanced": Scored(balanced),
    "dot_product": Scored(dot_product),
    "tetris": Scored(tetris),
    "gpu_packing": Scored(gpu_packing),
    "gpu_clustering": Scored(gpu_clustering),
    "random": Chance(),
    "fgd": Fgd(),
    "fgd_random_ties": Fgd(ties="random"),
}
"""The placements by score by name, with their defaults."""

__all__ = ["SCORED", "Chance", "Fgd", "Scored"]
