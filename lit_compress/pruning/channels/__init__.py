"""Coupled channels: find them, plan their removal, and cut them out of a network."""
