"""``python -m shop.config``: the configuration as JSON, for the command ``backpressure``."""

import json

from shop.celery import config

print(json.dumps(config.to_dict(), indent=2))
