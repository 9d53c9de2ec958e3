"""Producer hooks: one module per job framework. Each imports its framework, so import only the one in use.

`web` answers web requests whose jobs were refused, and imports no framework. Jobs that the body of `passing` enqueues
pass.
"""

from backpressure.integrations._shared.passing import passing

__all__ = ["passing"]
