"""`backpressure top`."""
