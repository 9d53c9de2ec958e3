"""Django's settings, as few as possible."""

import os

REDIS_URL = os.environ["REDIS_URL"]
# How many newsletters a campaign has, and how often one starts, in seconds.
MAILS = int(os.environ.get("SHOP_MAILS", "10000"))
CAMPAIGN_EVERY = float(os.environ.get("SHOP_CAMPAIGN_EVERY", "3600"))

BACKPRESSURE = {
    # "observe" refuses nothing: begin with it.
    "MODE": os.environ.get("SHOP_BACKPRESSURE", "enforce"),
    "POLLING": {
        "INTERVAL": "250ms",
        "JITTER": "50ms",
        "TIMEOUT": "250ms",
    },
    "QUEUES": {
        "mail": {
            # In waiting jobs.
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
    "shop.newsletter": {"queue": "mail"},
    "shop.receipt": {"queue": "mail"},
    "shop.welcome": {"queue": "mail"},
}
# The queue does not show tasks that a worker has taken.
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BEAT_SCHEDULE = {
    "campaign": {"task": "shop.campaign", "schedule": CAMPAIGN_EVERY},
}

MIDDLEWARE = [
    # Yours, and as the last one:
    "backpressure.integrations.web.BackpressureDjango",
]

SECRET_KEY = "for this example alone"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
USE_TZ = True
