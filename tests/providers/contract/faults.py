"""What every provider promises where the server, the network or the way to them fails."""

from __future__ import annotations

import gc
import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from faults import proxy as proxies
from faults.resolver import NAME as ANOTHER_NAME
from faults.resolver import Resolver
from providers.checks import backlogs, failure
from providers.contract.backend import HANGS
from providers.contract.life import leaves_nothing
from providers.contract.reading import connections, held_by, reads_fail
from support import servers
from support.controller_fixtures import eventually

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from providers.contract.backend import Backend
    from providers.contract.reading import Face

CROWD = {f"q{number}": number for number in range(40)}


def says(words: bytes) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(words)
        connection.recv(65536)

    return handle


STRANGERS: dict[str, tuple[Callable[[socket.socket], Any], str]] = {
    "http": (says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "protocol"),
    "ssh": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "protocol"),
    "garbage": (says(b"\x00\x01\x02\r\n"), "protocol"),
    "hangs up": (lambda connection: connection.close(), "connect"),
    "silent": (lambda _: time.sleep(1), "timeout"),
}

#: What becomes of a server's answers on their way, and what that is told as.
VERBS: dict[str, tuple[proxies.Verb, str]] = {
    "reset": (proxies.reset, "connect"),
    "cut": (proxies.cut, "connect"),
    "hang_up": (proxies.hang_up, "connect"),
    "drop": (proxies.drop, "timeout"),
    "corrupt": (proxies.corrupt, "protocol|timeout"),
    "exaggerate": (proxies.exaggerate, "timeout"),
    "speak_http": (proxies.speak_http, "protocol"),
}

#: Ways to fail at TLS: the face of the provider, where it goes, and what that is told as.
TLS: dict[str, tuple[str, dict[str, str], str]] = {
    "certificate": ("untrusting", {}, "protocol"),
    "host name": ("tls", {"host": ANOTHER_NAME}, "protocol"),
    "only we": ("tls", {"port": "plain text"}, "protocol|connect"),
    "only the server": ("plain", {"port": "tls"}, "protocol|connect"),
}


def within(seconds: float, begun: float) -> bool:
    return time.monotonic() - begun < seconds


def soon_reads(provider: Face, expected: dict[str, int]) -> None:
    """Read what is there, now or soon: a server that stood still may need a moment."""

    def reads() -> bool:
        try:
            return backlogs(provider.get_all_queue_stats()) == expected
        except Exception:  # noqa: BLE001
            return False

    eventually(reads)
    assert backlogs(provider.get_all_queue_stats()) == expected


def end_by_interrupt(provider: Face, readers: int = 1) -> None:
    """Begin reads that hang, and interrupt them: all of them end soon, and are told so."""
    with ThreadPoolExecutor(readers) as pool:
        reads = [pool.submit(provider.get_all_queue_stats) for _ in range(readers)]
        time.sleep(0.3)
        assert not any(read.done() for read in reads)
        begun = time.monotonic()
        while not all(read.done() for read in reads) and within(10, begun):
            provider.interrupt()  # again, for a thread may have begun late
            time.sleep(0.05)
        lasted = time.monotonic() - begun
        errors = [read.exception(HANGS) for read in reads]
    assert [getattr(error, "error_type", error) for error in errors] == ["deadline"] * readers
    assert lasted < 5


class CtrlC(threading.Thread):
    """Presses Ctrl-C, and again if nothing ends: in a weak reference's callback the interpreter loses one."""

    def __init__(self) -> None:
        super().__init__()
        self._over = threading.Event()

    def run(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        pause = 0.3
        while not self._over.wait(pause):
            signal.pthread_kill(main, signal.SIGINT)
            pause = 2

    def end(self) -> None:
        self._over.set()


def read_until(press: CtrlC, provider: Face) -> None:
    press.start()
    try:
        provider.get_many(["q1", "q2", "q3"])
    finally:
        press.end()


class Faults:
    def test_nobody_listens(self, backend: Backend) -> None:
        port = servers.dead_port()
        with backend.opened(port=port) as provider:
            begun = time.monotonic()
            for error in reads_fail(provider):
                assert error.error_type == "connect"
                assert f"{servers.HOST}:{port}" in str(error)
                assert backend.connect_advice in str(error)
            assert within(5, begun)

    def test_failed_reads_leave_nothing_behind(self, backend: Backend) -> None:
        def fails(provider: Face) -> bool:
            return failure(provider.get_all_queue_stats).error_type == "connect"

        leaves_nothing(backend.opened(port=servers.dead_port()), fails)

    def test_an_unknown_host(self, backend: Backend) -> None:
        with backend.opened(host="nobody.invalid") as provider:
            for error in reads_fail(provider):
                assert error.error_type == "dns"
                assert backend.dns_advice in str(error)

    def test_who_is_not_let_in_is_told_why(self, backend: Backend, refusal: str) -> None:
        label, words, meet = backend.refusals[refusal]
        with backend.closing(lambda: meet(backend)) as provider:
            for error in reads_fail(provider):
                assert error.error_type in label.split("|"), error
                assert words in str(error)
                assert held_by(provider)._where in str(error)
                shown = "".join(traceback.format_exception(error)) + repr(vars(error))
                assert [secret for secret in backend.secrets if secret in shown] == []

    def test_servers_that_are_none(self, backend: Backend, stranger: str) -> None:
        handle, usual = STRANGERS[stranger]
        met: list[object] = []

        def noted(connection: socket.socket) -> None:
            met.append(connection)
            handle(connection)

        with servers.Listener(noted) as listener, backend.opened(port=listener.port, timeout=0.3) as provider:
            begun = time.monotonic()
            error = failure(lambda: provider.get_queue_stats("q"))
            assert error.error_type in backend.label(stranger, usual), error
            assert within(5, begun)
            assert 1 <= len(met) <= 2, "the client tries again behind our back"

    def test_an_idle_connection_that_was_closed_is_replaced(self, backend: Backend) -> None:
        backend.fill({"q": 2})
        with proxies.Proxy(backend.port) as proxy, backend.opened(port=proxy.port) as provider:
            for _ in range(3):
                assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
                assert connections(proxy.port)
                proxy.disconnect()

    @pytest.mark.parametrize("warm", [False, True], ids=["connecting", "reading"])
    def test_what_a_network_may_do(self, backend: Backend, verb: str, warm: bool) -> None:
        spoil, usual = VERBS[verb]
        backend.fill({"q": 2})
        with proxies.Proxy(backend.port) as proxy, backend.opened(port=proxy.port, timeout=1) as provider:
            if warm:
                assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
            proxy.verb = spoil
            begun = time.monotonic()
            error = failure(lambda: provider.get_queue_stats("q"))
            assert error.error_type in backend.label(verb, usual), error
            assert within(5, begun)
            proxy.verb = proxies.forward
            assert backlogs(provider.get_all_queue_stats()) == {"q": 2}

    def test_a_server_that_drips_is_cut_off(self, backend: Backend, cut: tuple[str, bool]) -> None:
        """Each byte comes in time, the answer never does."""
        face, warm = cut
        backend.fill(CROWD)
        with (
            proxies.Proxy(backend.port_of(face)) as proxy,
            backend.opened(*CROWD, port=proxy.port, face=face, timeout=HANGS) as provider,
        ):
            if warm:
                assert backlogs(provider.get_all_queue_stats()) == CROWD
            proxy.verb = proxies.drip
            end_by_interrupt(provider)
            proxy.verb = proxies.forward
            assert backlogs(provider.get_all_queue_stats()) == CROWD

    def test_a_read_of_a_frozen_server_ends_by_its_timeout(self, backend: Backend, way: tuple[str, bool]) -> None:
        face, warm = way
        backend.fill({"q": 2})
        with backend.opened(face=face, timeout=1) as provider, backend.opened(face=face) as idle:
            idle.get_all_queue_stats()
            if warm:
                soon_reads(provider, {"q": 2})
            with backend.frozen():
                begun = time.monotonic()
                error = failure(provider.get_all_queue_stats)
                assert error.error_type == "timeout", error
                assert backend.timeout_words in str(error)
                assert time.monotonic() - begun > 0.9
                assert within(5, begun)
                begun = time.monotonic()
                idle.close()
                assert within(5, begun), "who closes does not wait for an answer"
            soon_reads(provider, {"q": 2})

    def test_an_interrupt_ends_every_read_of_a_frozen_server(self, backend: Backend, cut: tuple[str, bool]) -> None:
        face, warm = cut
        backend.fill({"q": 2})
        with backend.opened(face=face, timeout=HANGS) as provider:
            if warm:
                assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
            with backend.frozen():
                end_by_interrupt(provider, readers=1 if face in backend.uncut else 3)
            backend.wake(provider)
            assert backlogs(provider.get_all_queue_stats()) == {"q": 2}
            provider.interrupt()
            assert backlogs(provider.get_all_queue_stats()) == {"q": 2}

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # see `CtrlC`
    def test_ctrl_c_leaves_no_answer_for_the_next_read(self, backend: Backend, way: tuple[str, bool]) -> None:
        face, warm = way
        backend.fill(CROWD)
        was = signal.signal(signal.SIGINT, signal.default_int_handler)
        press = CtrlC()
        try:
            with backend.opened(*CROWD, face=face, timeout=HANGS) as provider:
                if warm:
                    provider.get_many(["q1", "q2", "q3"])
                with backend.frozen():
                    begun = time.monotonic()
                    with pytest.raises(KeyboardInterrupt):
                        read_until(press, provider)
                    assert within(5, begun)
                backend.wake(provider)
                for name, backlog in CROWD.items():
                    assert provider.get_queue_stats(name).backlog_count == backlog
        finally:
            press.end()
            press.join()
            signal.signal(signal.SIGINT, was)

    def test_tls(self, backend: Backend) -> None:
        backend.fill({"q": 2})
        for face in backend.tls_faces:
            with backend.opened(face=face) as provider:
                for _ in range(2):
                    assert backlogs(provider.get_all_queue_stats()) == {"q": 2}

    # Some clients leave the socket of a failed handshake to the garbage collector: it is called here, not later.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_tls_that_fails(self, backend: Backend, monkeypatch: pytest.MonkeyPatch, tls: str) -> None:
        face, where, usual = TLS[tls]
        options: dict[str, Any] = {name: backend.port_of(at) if name == "port" else at for name, at in where.items()}
        Resolver(monkeypatch)
        with backend.opened(face=face, timeout=1, **options) as provider:
            for error in reads_fail(provider):
                assert error.error_type in backend.label(tls, usual), error
                assert backend.tls_words.get(tls, "") in str(error).lower()
                assert "only" not in tls or backend.tls_advice.get(error.error_type, "") in str(error)
        gc.collect()
