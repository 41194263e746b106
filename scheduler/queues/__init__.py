"""Queues as one YAML file: read and checked, compared, written. The values are those of policies/tree.py."""

from .reading import parse_queues, read_queues
from .writing import to_document, write_queues

__all__ = ["parse_queues", "read_queues", "to_document", "write_queues"]
