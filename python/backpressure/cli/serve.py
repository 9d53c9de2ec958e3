"""`backpressure serve`: queues, producers and switches on a page, for people who have no terminal at hand."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

import click

from backpressure._model.errors import ConfigurationError
from backpressure._runtime.extras import extra
from backpressure.cli._command import command
from backpressure.cli._config_options import ConfigOptions, config_options
from backpressure.cli._endings import Refusal, ending, terminable
from backpressure.cli._queue_options import SHARE, QueueOptions, queue_options
from backpressure.cli.fleet._reach import author, fleet_name, sign_with
from backpressure.console import HOSTS, app

if TYPE_CHECKING:
    from backpressure._model.config.root import BackpressureConfig
    from backpressure.console.application import Console

__all__ = ["serve"]

_EXAMPLES = """\
backpressure serve --config backpressure.toml
backpressure serve --config backpressure.toml --port 9000 --interval 1
backpressure serve --redis-url redis://localhost:6379/0 --layout rq -q mail -q sms
backpressure serve --config backpressure.toml --fleet shop --control
backpressure serve --config backpressure.toml --host 0.0.0.0 --allow-host ops.example.com
"""

#: Holds the token of a console that is started where nobody reads what it prints.
_TOKEN = "BACKPRESSURE_CONSOLE_TOKEN"  # noqa: S105 - it names a variable
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: What is said of arguments of `app` by the names of the options that give them.
_OPTIONS = {"token": _TOKEN, "by": "--by", "queues": "--queue"}
_GRACE = 3  # seconds for answers that are under way at the end


@command(_EXAMPLES)
@queue_options
@config_options
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8765,
    metavar="N",
    help="Port to listen on; 0 takes one that is free.",
)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A name by which browsers may ask, beside those of the loopback interface. Repeatable.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    metavar="S",
    help="Seconds between two readings; default polling.interval.",
)
@click.option(
    "--control",
    is_flag=True,
    help=f"Let the page turn the fleet's switches, with a token that is shown here, or is in {_TOKEN}.",
)
@fleet_name
@sign_with
@author
def serve(
    place: QueueOptions,
    given: ConfigOptions,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    interval: float | None,
    control: bool,
    fleet: str | None,
    sign_with: str | None,
    by: str | None,
) -> None:
    """Show queues on a page.

    The page shows the queues given, else those that the file has sections of: the last hour's backlog and oldest age,
    zone and advice at each priority, and what cannot be read; and the processes and switches of the fleet, if there is
    one. It writes nothing to any server, but for a switch that somebody turns with --control. Whoever reaches the port
    sees it, so it listens on the loopback interface unless told otherwise: reach it through ssh -L, or put a proxy that
    knows people before it. Ctrl-C ends it, which is good: exit code 0. Else exits with 1 when the configuration is
    faulty, 2 for wrong usage.
    """
    with ending("serve"):
        config = _with_fleet(given.load(), fleet, sign_with)
        token = _token(config, control)
        names = place.chosen(config)
        if not names:
            raise Refusal("there is no queue to show: give --queue, or --config with sections of queues")
        every = config.polling.interval if interval is None else interval
        provider, _ = place.provider(config, names, SHARE * min(config.polling.timeout, every))
        with contextlib.closing(provider), terminable(), contextlib.suppress(KeyboardInterrupt):
            try:
                with extra("console", "starlette", "uvicorn", what="backpressure serve"):
                    import uvicorn  # noqa: F401, PLC0415 - the extra may be missing
                console = app(
                    config,
                    provider,
                    queues=names,
                    interval=interval,
                    hosts=(*HOSTS, *hosts),
                    by=by,
                    control=control,
                    token=token,
                )
            except ModuleNotFoundError as error:
                raise Refusal(str(error)) from None
            except ConfigurationError as error:
                if error.field not in _OPTIONS and not str(error.field).startswith("fleet."):
                    raise
                raise Refusal(f"{_OPTIONS.get(str(error.field), 'the fleet cannot be met')}: {error}") from None
            with contextlib.closing(console), _listening(host, port) as listener:
                _tell(listener, host, console.token if control and token is None else None)
                _run(console, listener)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise Refusal(
            f"cannot listen on {host} port {port} ({error.strerror}): give another --host or --port"
        ) from None


def _with_fleet(config: BackpressureConfig, name: str | None, sign_with: str | None) -> BackpressureConfig:
    """Return `config` with the fleet that was asked for."""
    given = {"fleet.name": name, "fleet.key": None if sign_with is None else f"${sign_with}"}
    try:
        return config.evolve({path: value for path, value in given.items() if value is not None})
    except ConfigurationError as error:
        raise Refusal("the fleet cannot be met", *map(str, error.faults or (error,))) from None


def _token(config: BackpressureConfig, control: bool) -> str | None:
    """Return the token that people type; ``None``: a new one is shown, or none is needed."""
    if not control:
        return None
    if config.fleet.name is None:
        raise Refusal(
            "--control turns a fleet's switches: give --fleet, or --config with a section fleet that has a name"
        )
    token = os.environ.get(_TOKEN)
    if token is None and not sys.stdout.isatty():
        raise Refusal(
            f"--control shows a token, which is not for a log: run it in a terminal, or set {_TOKEN} to at least 16 "
            "characters"
        )
    return token


def _tell(listener: socket.socket, host: str, token: str | None) -> None:
    address, port = listener.getsockname()[:2]
    name = f"[{address}]" if ":" in address else address
    # What stands behind # is sent to no server, and so into no log; the page takes it out of the address.
    opens = "" if token is None else f"#token={token}"
    print(f"console: http://{name}:{port}/{opens}  (Ctrl-C ends it)", flush=True)
    if host not in _LOOPBACK:
        print(
            "backpressure serve: whoever reaches this port sees the queues: put a proxy that knows people before it",
            file=sys.stderr,
        )


def _run(console: Console, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - the extra may be missing, as was seen

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: object) -> None:
            console.end()  # streams never end by themselves, and are waited for
            super().handle_exit(sig, frame)  # type: ignore[arg-type] # of the signal module's type

    settings = uvicorn.Config(
        console,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=_GRACE,
    )
    Server(settings).run(sockets=[listener])
