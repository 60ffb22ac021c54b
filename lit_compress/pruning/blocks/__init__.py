"""Residual blocks: which modules add a branch to their input, and a network without them."""
