"""Channels: which ones are coupled, and how they are removed."""
