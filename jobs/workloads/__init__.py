"""Real jobs to run under gpusched and to copy from: train a small text classifier, then classify with it.

They need torch and nothing of gpusched: each runs alone, under torchrun, and as a gpusched job, because torchrun and
gpusched say by the same environment variables who is who.
"""
