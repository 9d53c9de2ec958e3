"""What PyInstaller cannot see, though an application needs it: imports by name, scripts, and its own metadata."""

import contextlib
import importlib.metadata

from PyInstaller.utils.hooks import collect_data_files, copy_metadata

hiddenimports = [
    "backpressure._controller.asynchronous",
    "backpressure._engine.pure",
    "backpressure._engine.totals",
    "backpressure._model.arguments",
    "backpressure._model.decision",
    "backpressure._model.vocabulary",
    "backpressure._native",
    "backpressure._recording.recorder",
    "backpressure._recording.recording",
    "backpressure._runtime.version",
    "backpressure._telemetry.metrics",
    "backpressure.providers.configured",
    "backpressure.providers.kafka.provider",
    "backpressure.providers.postgres.provider",
    "backpressure.providers.prometheus.provider",
    "backpressure.providers.rabbitmq.provider",
    "backpressure.providers.redis.async_provider",
    "backpressure.providers.redis.provider",
    "backpressure.providers.sqs.provider",
]
datas = collect_data_files("backpressure", includes=["**/*.lua", "console/page/**"])
with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # it is not installed, but lies on the path
    datas += copy_metadata("producer-backpressure")  # for __version__, and for layouts that are entry points
