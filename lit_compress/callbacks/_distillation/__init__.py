"""Teachers, and the calls of the network that they follow."""
