"""The named policies by family: each is a factory whose docstring states its rule and its choices."""
