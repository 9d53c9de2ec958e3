"""A second interpreter in one process, as some web servers make them: the pure engine serves it as well."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processes.conftest import Python

# The standard library has no public name for this before 3.14.
CREATE = (
    "import _xxsubinterpreters as interpreters; second = interpreters.create(isolated=False)"
    if sys.version_info < (3, 13)
    else "import _interpreters as interpreters; second = interpreters.create('legacy')"
)
PROGRAM = f"""
import sys
import backpressure

{CREATE}
interpreters.run_string(second, f"import sys; sys.path[:] = {{sys.path!r}}")
try:
    failure = interpreters.run_string(second, '''if True:
        from backpressure import BackpressureController, InMemoryStatsProvider
        with BackpressureController(None, InMemoryStatsProvider({{"jobs": 7}})) as controller:
            print(controller.suggest_throttle("low", "jobs").backlog_size, flush=True)
    ''')
except interpreters.RunFailedError as error:
    failure = error
interpreters.destroy(second)
sys.exit(None if failure is None else str(failure))
"""


@pytest.mark.parametrize("engine_name", ["pure"], indirect=True)
def test_the_pure_engine_serves_it(python: Python) -> None:
    ended = python(PROGRAM)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "7\n", "")


@pytest.mark.parametrize("engine_name", ["native"], indirect=True)
def test_the_native_engine_refuses_and_says_what_to_do(python: Python) -> None:
    ended = python(PROGRAM)
    assert ended.returncode == 1
    assert "serves one interpreter a process" in ended.stderr
    assert "set BACKPRESSURE_ENGINE=pure" in ended.stderr
