"""Who reads the statistics, when, and what happens with what was read."""
