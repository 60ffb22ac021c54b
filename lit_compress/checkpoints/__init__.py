"""Checkpoints of pruned modules: read, load, resize."""
