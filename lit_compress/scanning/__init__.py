"""Sensitivity scans: what each layer's pruning costs, by the user's own validation_step."""
