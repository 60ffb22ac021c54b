"""What the pruning callbacks share."""
