"""Many runs of the simulator: policies x traces x clusters x what is swept x seeds, spread over processes or Ray.

What is run: `grid.py` reads what `--sweep` says, `inputs.py` what else a user names, `case.py` is one run and the key
that it is known by, `vary.py` is what a load and a seed do to a trace, `study.py` is the plan and has it made.

Who runs it: `work.py` makes one run, `worker.py` is a process that does so, `spread.py` hands runs to processes,
`ray_side.py` to the driver `on_ray.py`; `child.py` is the line between two processes. `floors.py` adds lower bounds.

What comes out: `row.py` is a run's results, `results.py` keeps them in Parquet, `combine.py` puts the seeds together,
and `show.py`, `figures.py` and `page.py` show them. docs/studies.md tells users of it all.
"""
