"""A shop on Django that sends mails with Celery: newsletters (low), and receipts for customers who buy (high)."""

from shop.celery import app as celery_app

__all__ = ["celery_app"]
