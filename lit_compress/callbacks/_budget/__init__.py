"""How much to prune for a budget that is no share of the network."""
