"""What can go wrong through no fault of the code."""

from __future__ import annotations


class WorkloadError(Exception):
    """Something that the person who started the job can mend; said in one line, without a traceback."""
