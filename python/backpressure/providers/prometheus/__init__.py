"""Queues whose lengths are in Prometheus."""
