"""What there is to run on, and the doors to it."""
