"""Queues on Kafka: the lag of consumer groups."""
