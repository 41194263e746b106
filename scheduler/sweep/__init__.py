"""Many runs of the simulator: policies x traces x clusters x what is swept x seeds, spread over processes or Ray.

`case.py` says what one run is and what it is known by, `grid.py` what `--sweep` may say, `vary.py` what a seed and a
load do to a trace, `work.py` makes one run, `spread.py` hands runs to processes, `on_ray.py` to a Ray cluster,
`results.py` keeps them in Parquet, `combine.py` puts an interval around what the seeds gave, and `show.py`,
`figures.py` and `page.py` show it. `study.py` puts these together.
"""
