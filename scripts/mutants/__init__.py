"""Puts small faults into law, queue and breaker, one by one, and sees whether a test notices each."""
