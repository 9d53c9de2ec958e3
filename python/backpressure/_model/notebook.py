"""Notebooks: whether an event loop is the one that a Jupyter kernel runs cells on, which a cell blocks anyway."""

from __future__ import annotations

import sys
import threading

__all__ = ["runs_cells"]


def runs_cells(loop: object) -> bool:
    """Tell whether `loop`, which runs in the calling thread, is that of a Jupyter kernel.

    ipykernel runs every cell on its loop, in the main thread or in that of a subshell, and so do Colab and VS Code,
    which use it. Other loops of the same process, such as that of a server on a thread, are not the kernel's.
    """
    ipython = sys.modules.get("IPython")  # a kernel has loaded it
    get_shell = getattr(ipython, "get_ipython", None)
    kernel = None if get_shell is None else getattr(get_shell(), "kernel", None)  # no kernel in a terminal
    if kernel is None:
        return False
    thread = threading.current_thread()
    runner = thread if type(thread).__module__ == "ipykernel.subshell" else kernel
    return getattr(getattr(runner, "io_loop", None), "asyncio_loop", None) is loop
