"""A view of a run: what the user's steps read of it is true, and they change nothing of it."""
