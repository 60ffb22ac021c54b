"""Export: from a module to a graph and a file."""
