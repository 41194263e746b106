"""Published experiments as commands: `gpusched bench`."""
