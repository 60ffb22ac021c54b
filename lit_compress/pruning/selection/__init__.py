"""Selection: which channels to prune to reach a target."""
