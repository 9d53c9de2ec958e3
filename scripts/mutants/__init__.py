"""Puts small faults into law, cache and breaker, one by one, and sees whether a test notices each."""
