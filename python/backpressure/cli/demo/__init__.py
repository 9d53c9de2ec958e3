"""`backpressure demo`."""
