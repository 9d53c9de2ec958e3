"""Interpreters other than a process's main one, as some web servers make them: the pure engine serves them too."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from processes.conftest import Python

# The standard library has no public name for this before 3.14.
CREATE = (
    "import _xxsubinterpreters as interpreters\ncreate = lambda kind: interpreters.create(isolated=kind == 'isolated')"
    if sys.version_info < (3, 13)
    else "import _interpreters as interpreters\ncreate = interpreters.create"
)
# Each interpreter, also the main one, does this: decide, and run jobs of all kinds.
USE = """
import sys, threading
sys.path[:] = {path!r}
from backpressure import BackpressureController, InMemoryStatsProvider

class Value: ...

def fail():
    raise ConnectionError

async def promise(): ...

def use():
    with BackpressureController(None, InMemoryStatsProvider({{"jobs": 7}})) as controller:
        gate = controller.gate("high", "jobs")
        told = [controller.suggest_throttle("high", "jobs").backlog_size]
        for run in (lambda work: controller.run("high", "jobs", work), gate.run):
            for work in (int, Value, fail, promise):
                gate.suggest()  # so that a go lies ready
                try:
                    run(work)
                except (ConnectionError, TypeError) as error:
                    told.append(isinstance(error, ConnectionError))
        print(*told, flush=True)

def use_in_a_thread():
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
"""
TOLD = "7 True False True False\n"
PROGRAM = f"""
import sys
{CREATE}
use = {USE!r}.format(path=sys.path)

def run(code, other):
    try:
        failure = interpreters.run_string(other, use + code)
    except interpreters.RunFailedError as error:
        failure = error
    if failure is not None:
        sys.exit(str(failure))

def in_main(call="use()"):
    exec(use + call, {{}})

def in_other(call="use()", kind="legacy"):
    other = create(kind)
    run(call, other)
    interpreters.destroy(other)
"""
ORDERS = {
    "in_other()": 1,
    "in_other(), in_main()": 2,
    "in_main(), in_other()": 2,
    "in_other(), in_other(), in_main()": 3,
    "one, other = create('legacy'), create('legacy'); run('use()', one), run('use()', other), run('use()', one)": 3,
    "in_main(), in_other('use_in_a_thread()'), in_main('use_in_a_thread()')": 3,
}


@pytest.mark.parametrize("engine_name", ["pure"], indirect=True)
@pytest.mark.parametrize("order", ORDERS)
def test_the_pure_engine_serves_them_all(python: Python, order: str) -> None:
    ended = python(PROGRAM + order)
    assert (ended.returncode, ended.stdout) == (0, TOLD * ORDERS[order])
    assert "Traceback" not in ended.stderr  # other extensions warn there that they are loaded twice


@pytest.mark.parametrize("engine_name", ["native"], indirect=True)
@pytest.mark.parametrize("order", ORDERS)
def test_the_native_engine_refuses_others_and_says_what_to_do(python: Python, order: str) -> None:
    ended = python(PROGRAM + order)
    assert (ended.returncode, ended.stdout) == (1, TOLD if order.startswith("in_main") else "")
    assert "backpressure._native serves the main interpreter of a process alone" in ended.stderr
    assert "set BACKPRESSURE_ENGINE=pure" in ended.stderr


@pytest.mark.parametrize("engine_name", ["native"], indirect=True)
def test_after_a_refusal_the_main_interpreter_is_served(python: Python) -> None:
    ended = python(PROGRAM + "try: in_other()\nexcept SystemExit: in_main()")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, TOLD, "")


@pytest.mark.parametrize("engine_name", ["native"], indirect=True)
def test_the_pure_engine_serves_another_beside_the_native_one(python: Python) -> None:
    choose = "import os\nos.environ['BACKPRESSURE_ENGINE'] = 'pure'\n"
    ended = python(f"{PROGRAM}in_main()\nuse = {choose!r} + use\nin_other(), in_main()")
    assert (ended.returncode, ended.stdout) == (0, TOLD * 3)


@pytest.mark.parametrize("engine_name", ["native"], indirect=True)
def test_isolated_interpreters_are_told_the_same(python: Python) -> None:
    """`CPython` itself does not let them load such an extension."""
    ended = python(f"{PROGRAM}in_other(kind='isolated')")
    # 3.12 aborts at its end, whenever such an interpreter has imported asyncio; all has been told by then.
    codes = {1, -signal.SIGABRT} if sys.version_info[:2] == (3, 12) else {1}
    assert ended.returncode in codes
    assert ended.stdout == ""
    assert "set BACKPRESSURE_ENGINE=pure" in ended.stderr
