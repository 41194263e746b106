"""gpusched: a GPU queue for Ray clusters, with policies, a journal and a simulator that runs the same engine."""

__version__ = "0.2.0"
