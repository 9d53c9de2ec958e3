"""Commands that operate a fleet: they write to its keys, and to nothing else."""
