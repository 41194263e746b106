"""Traces of real and made-up clusters: one reader a published format, one writer, one generator.

`catalog.read_trace` reads any of them; `trace.Trace` is what it gives; `generate.generate` makes new ones.
"""
