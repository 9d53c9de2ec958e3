"""The soak: everything at once for a long time. `make soak` runs it."""
