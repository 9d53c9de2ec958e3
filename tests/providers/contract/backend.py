"""What the contract knows of one backend: its provider, its server, and what it does not promise."""

from __future__ import annotations

import abc
import contextlib
import threading
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from providers.contract.reading import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from providers.contract.reading import Face
    from support import servers

#: Who may not be shown anywhere, and with what password.
USER, PASSWORD = "canary-user", "canary-9f3b-word"
CANARY = "canary"

#: Seconds that nobody would wait for.
HANGS = 30.0


class Wrong(NamedTuple):
    """Arguments that a provider refuses: the field that it names, and words of the message."""

    field: str
    make: Callable[[], object]
    words: str = ""


class Refusal(NamedTuple):
    """A server that does not let us in: the label, words of the message, and how to meet it."""

    label: str
    words: str
    meet: Callable[[Any], Any]


class Backend(abc.ABC):
    """A provider and its server, which runs. Each test file of a backend derives one."""

    #: The provider's class.
    kind: ClassVar[type[Any]]
    #: Promises that do not hold here, and why: a test's name, perhaps with a case in brackets, or a class of tests.
    not_promised: ClassVar[Mapping[str, str]] = {}
    #: Ways to the server, as `make` knows them. "tls" trusts its certificate; "untrusting", known too, does not.
    faces: ClassVar[Sequence[str]] = ("plain",)
    #: Those that TLS lets through.
    tls_faces: ClassVar[Sequence[str]] = ("tls",)
    #: Faces whose connects no interrupt ends, and why: they end by the client's own timeout.
    uncut: ClassVar[Mapping[str, str]] = {}
    #: Whether what is read is the server that jobs are sent to.
    shares_server: ClassVar[bool] = True
    #: Whether queues are read that are not listed.
    reads_unlisted: ClassVar[bool] = False
    #: How many connections may be kept between reads.
    kept: ClassVar[int] = 2
    #: What is to be shown nowhere.
    secrets: ClassVar[Sequence[str]] = (USER, PASSWORD)
    #: Attributes of a provider that hold secrets and do not pickle either.
    holders: ClassVar[tuple[str, ...]] = ()
    #: Whether messages quote servers, with asterisks for what is secret.
    quotes: ClassVar[bool] = True
    #: The logger from which on nothing shows a secret, and loggers that have nothing to tell while a provider reads.
    listened_to: ClassVar[str] = ""
    silent: ClassVar[tuple[str, ...]] = ("backpressure",)
    dns_advice: ClassVar[str] = "check the host name"
    connect_advice: ClassVar[str] = "check that the server runs"
    #: Words of the messages about what is wrong with a certificate, in lower case.
    tls_words: ClassVar[Mapping[str, str]] = {
        "certificate": "certificate verify failed",
        "host name": "hostname mismatch",
    }
    #: Words of the message about a server that stands still.
    timeout_words: ClassVar[str] = ""
    #: What is told where one side speaks TLS and the other does not, by label.
    tls_advice: ClassVar[Mapping[str, str]] = {}
    #: Arguments that are refused, beyond those that all providers have.
    wrong: ClassVar[Sequence[Wrong]] = ()
    #: The argument that says where the server is, and values that hold a secret and cannot be read.
    where: ClassVar[str]
    malformed: ClassVar[Sequence[Any]] = ()
    #: Servers that let nobody in, by name.
    refusals: ClassVar[Mapping[str, Refusal]] = {}
    #: What a failed read is told as, where it is not as everywhere.
    labels: ClassVar[Mapping[str, str]] = {}

    def __init__(self, port: int, server: servers.Child | None = None) -> None:
        self.port = port
        self._process = server

    # What every backend says.

    @abc.abstractmethod
    def make(
        self, queues: Any, *, face: str = "plain", host: str = "", port: int = 0, given: Any = None, **options: Any
    ) -> Any:
        """Return a provider of the server that runs, of another host or port, or of the place that is `given`."""

    @abc.abstractmethod
    def fill(self, backlogs: Mapping[str, int]) -> None:
        """Give each of these queues so many jobs."""

    # What most have no need to say.

    def place(self, name: str) -> Any:
        """Return what `queues` maps a name to."""
        return name

    def spoil(self, name: str) -> str:
        """Make a queue unreadable; return the label of its error."""
        raise NotImplementedError

    def port_of(self, face: str) -> int:
        """Return where the server is met in this way; "plain text" is where it knows no TLS."""
        return self.port

    def frozen(self) -> contextlib.AbstractContextManager[object]:
        """Let the server stand still, with its connections open."""
        return frozen(self.process)

    def wake(self, provider: Face) -> None:  # noqa: B027 - most have nothing to wait for
        """Wait until a server that stood still answers again."""

    @property
    def process(self) -> servers.Child:
        """The server's own."""
        assert self._process is not None, "it has none: name the promises that need one as not promised"
        return self._process

    def secretive(self) -> Iterator[Any]:
        """Give providers that know `secrets`, in front of servers of every mood."""
        raise NotImplementedError

    def inside(self, provider: Any) -> Iterable[object]:
        """Return what lies in a provider that may be shown in full."""
        return [vars(provider)]

    # What the contract makes of it.

    def opened(self, *names: str, **options: Any) -> contextlib.AbstractContextManager[Face]:
        """Return a provider of these queues, behind blocking methods, which is closed at the end."""
        queues = {name: self.place(name) for name in names or ("q",)}
        return self.closing(lambda: self.make(queues, **{"timeout": 10.0, **options}))  # machines stall

    @staticmethod
    @contextlib.contextmanager
    def closing(make: Callable[[], Any]) -> Iterator[Face]:
        provider = reading(make())
        try:
            yield provider
        finally:
            provider.close()

    def label(self, fault: str, usual: str) -> set[str]:
        """Return what a fault may be told as."""
        return set(self.labels.get(fault, usual).split("|"))


class Scripted(Backend):
    """A backend whose server is a script in this process, with a front for TLS and a web server that knows no TLS."""

    faces = ("plain", "tls")
    not_promised: ClassVar[Mapping[str, str]] = {
        "test_a_server_that_restarts": "a script has no process: test_what_a_network_may_do[hang_up] is the same to us"
    }

    def __init__(self, port: int, front: int, deaf: int) -> None:
        super().__init__(port)
        self._ports = {"plain": port, "plain text": deaf}
        self._front = front
        self.runs = threading.Event()
        self.runs.set()

    def port_of(self, face: str) -> int:
        return self._ports.get(face, self._front)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self.runs.clear()
        try:
            yield
        finally:
            self.runs.set()


@contextlib.contextmanager
def frozen(server: servers.Child) -> Iterator[None]:
    """Stop a server's process for a while."""
    server.freeze()
    try:
        yield
    finally:
        server.resume()
