"""The loop, the memory and the faces."""
