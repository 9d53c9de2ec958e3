"""A shop on Django, whose mails are Celery's: newsletters (low), and receipts of those who buy (high)."""

from shop.celery import app as celery_app

__all__ = ["celery_app"]
