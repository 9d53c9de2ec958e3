"""Backpressure for job producers: slow down, shed by priority, stand behind a circuit breaker."""
