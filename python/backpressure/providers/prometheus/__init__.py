"""Queues whose lengths Prometheus has."""
