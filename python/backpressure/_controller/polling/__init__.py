"""Who reads the statistics, when, and what becomes of what was read."""
