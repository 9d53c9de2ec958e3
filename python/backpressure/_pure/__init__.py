"""The reference engine, in Python: what the native one mirrors file by file, and what runs where Rust cannot."""

from backpressure._pure.breaker import Breaker, Ticket
from backpressure._pure.curve import ThreeZoneLaw
from backpressure._pure.engine import Engine, Gate

DEBUG = False

__all__ = ["DEBUG", "Breaker", "Engine", "Gate", "ThreeZoneLaw", "Ticket"]
