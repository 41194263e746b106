"""The laws that every policy keeps, as one helper for pytest.

    from gpusched.policies.testing import check_policy
    from mypolicy import Mine

    def test_mine_keeps_the_laws():
        check_policy(Mine)

Hypothesis is needed, and imported only when the helper is called: `pip install hypothesis`.
"""

from .laws import check_policy
from .world import LawBrokenError, Promises

__all__ = ["LawBrokenError", "Promises", "check_policy"]
