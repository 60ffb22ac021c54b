"""Work that the processes of a run share, and how they wait for each other."""
