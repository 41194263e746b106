"""Values: what a job is, what can happen to it, and how it is read. Imports nothing else of ours."""
