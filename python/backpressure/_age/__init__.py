"""How any number of producers hold the age of a queue's jobs at a target: one budget, one script, one lease each."""
