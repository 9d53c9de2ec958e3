"""The parts of Celery's hook."""
