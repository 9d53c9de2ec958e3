"""Run what a test wants to interrupt under a trace function, and nothing else."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

T = TypeVar("T")


def run_traced(work: Callable[[], T], trace: Callable[[FrameType, str, Any], Any]) -> T:
    """Return what `work` returns, traced by `trace`.

    The garbage collector is off meanwhile: the objects that it would end here, in the middle of `work`, belong to other
    tests, and what `trace` raises in their ``__del__`` reaches nobody.
    """
    before, collecting = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 checks whether one wants them when tracing begins
    sys.settrace(trace)
    try:
        return work()
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
