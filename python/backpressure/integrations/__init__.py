"""Producer hooks: one module per job framework. Each imports its framework, so import only the one in use.

`web` answers web requests whose jobs were refused, and imports no framework. Jobs that the body of `passing` enqueues
pass. A `Restartable` is a controller for programs whose lifespan runs more than once.
"""

from backpressure.integrations._shared.controllers import Restartable
from backpressure.integrations._shared.passing import passing

__all__ = ["Restartable", "passing"]
