"""Queues in tables of PostgreSQL."""
