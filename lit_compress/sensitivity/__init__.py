"""Sensitivity scan: what the metric loses when one layer is pruned, without training."""
