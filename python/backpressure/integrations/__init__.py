"""Producer hooks: a module per job framework, each of which imports its framework, so import only the one in use.

`web` answers web requests whose jobs were refused, and imports none. `passing` lets pass what its body enqueues.
"""

from backpressure.integrations._shared.passing import passing

__all__ = ["passing"]
