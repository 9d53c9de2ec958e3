"""The reference engine, in Python: what the native one mirrors file by file, and what runs where Rust cannot."""

from backpressure._age.lease import Lease
from backpressure._age.tenants import Tenants
from backpressure._engine.pure.breaker import Breaker, Ticket
from backpressure._engine.pure.engine import Engine
from backpressure._engine.pure.gate import Gate

DEBUG = False

__all__ = ["DEBUG", "Breaker", "Engine", "Gate", "Lease", "Tenants", "Ticket"]
