"""Trials of a removal: the network must compute the same as one that reads zeros instead."""
