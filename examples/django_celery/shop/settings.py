"""Django's settings, as few as possible."""

import os

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
# How many newsletters a campaign has, and how often beat starts one, in seconds.
MAILS = int(os.environ.get("SHOP_MAILS", "10000"))
CAMPAIGN_EVERY = float(os.environ.get("SHOP_CAMPAIGN_EVERY", "3600"))

BACKPRESSURE = {
    # "observe" decides and counts, but refuses nothing: begin with it.
    "MODE": os.environ.get("SHOP_BACKPRESSURE", "enforce"),
    # How often the backlog is read. The default is every 5 s.
    "POLLING": {"INTERVAL": "250ms", "JITTER": "50ms", "TIMEOUT": "250ms"},
    "QUEUES": {
        "mail": {
            # In waiting jobs. The defaults are 100, 500 and 1000.
            "THRESHOLDS": {
                "LOW_PRIORITY": {
                    "GREEN_MAX": 100,
                    "YELLOW_MAX": 200,
                    "RED_MAX": 400,
                },
            },
            # Where the command line finds it.
            "LAYOUT": "celery",
            "URL": "$REDIS_URL",
        },
    },
}

CELERY_BROKER_URL = REDIS_URL
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ROUTES = {
    name: {"queue": "mail"}
    for name in ("shop.newsletter", "shop.receipt", "shop.welcome")
}  # fmt: skip
# The queue does not show tasks that a worker has taken.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BEAT_SCHEDULE = {
    "campaign": {"task": "shop.campaign", "schedule": CAMPAIGN_EVERY},
}

MIDDLEWARE = ["backpressure.integrations.web.BackpressureDjango"]  # the last

SECRET_KEY = "for this example alone"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
USE_TZ = True
