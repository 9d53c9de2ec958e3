"""Queues on Redis and Valkey."""
