"""Training with fake quantisation: the graph of the int8 file, run on the weights of a module."""
