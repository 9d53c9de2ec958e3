"""Notebooks: whether an event loop is the one that a notebook's kernel runs cells on, which a cell blocks anyway."""

from __future__ import annotations

import sys
import threading

__all__ = ["runs_cells"]


def runs_cells(loop: object) -> bool:
    """Tell whether `loop`, which runs in the calling thread, is that of a notebook's kernel.

    Other loops of the same process, such as that of a server on a thread, are not the kernel's.
    """
    return _is_of_ipython(loop) or _is_of_marimo()


def _is_of_ipython(loop: object) -> bool:
    """Tell it of kernels that have an IPython shell.

    ipykernel runs every cell on its loop, in the main thread or in that of a subshell, and so do Colab and VS Code,
    which use it. Kernels that tell of no loop, as xeus-python's, run theirs in the main thread.
    """
    ipython = sys.modules.get("IPython")  # a kernel has loaded it
    get_shell = getattr(ipython, "get_ipython", None)
    kernel = None if get_shell is None else getattr(get_shell(), "kernel", None)  # no kernel in a terminal
    if kernel is None:
        return False
    thread = threading.current_thread()
    runner = thread if type(thread).__module__ == "ipykernel.subshell" else kernel
    io_loop = getattr(runner, "io_loop", None)
    if io_loop is None:
        return thread is threading.main_thread()
    return getattr(io_loop, "asyncio_loop", None) is loop


def _is_of_marimo() -> bool:
    """Tell it of marimo, which runs cells on a loop of one thread, and knows it; threads of its own class run none."""
    running_in_notebook = getattr(sys.modules.get("marimo"), "running_in_notebook", None)
    if running_in_notebook is None or type(threading.current_thread()).__module__.startswith("marimo."):
        return False
    return bool(running_in_notebook())
