"""A run of a network in which labels follow its channels."""
