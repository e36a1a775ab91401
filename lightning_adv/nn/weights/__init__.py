"""Weights in and out: checkpoints of this package and of others, domains, exports."""
