"""Django's settings, as few as possible."""

import os

REDIS_URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
# How many newsletters a campaign has, and how often beat starts one, in seconds.
MAILS = int(os.environ.get("SHOP_MAILS", "10000"))
CAMPAIGN_EVERY = float(os.environ.get("SHOP_CAMPAIGN_EVERY", "3600"))

SECRET_KEY = "for this example alone"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["shop"]
MIDDLEWARE = ["backpressure.integrations.web.BackpressureDjango"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
USE_TZ = True
