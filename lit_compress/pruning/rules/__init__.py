"""Pruning rules: read them from a file, and prune each layer by its rule."""
