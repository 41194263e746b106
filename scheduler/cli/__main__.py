"""`python -m gpusched.scheduler.cli`: the same as `gpusched`."""

from . import main

main()
