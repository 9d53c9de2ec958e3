"""The contract of providers: a test file makes one for its backend, and has every promise tested there.

Write ``class TestContract(Contract, of=MyBackend)`` beside a fixture ``backend`` that gives a `MyBackend`. Every
promise is tested, but for those that the backend names as not its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from providers.contract.arguments import Arguments, Samples
from providers.contract.controllers import Controllers
from providers.contract.faults import STRANGERS, TLS, VERBS, Faults
from providers.contract.life import Life
from providers.contract.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from providers.contract.backend import Backend

PARTS = (Arguments, Samples, Life, Faults, Secrets, Controllers)


class Contract(Arguments, Samples, Life, Faults, Secrets, Controllers):
    of: ClassVar[type[Backend]]

    def __init_subclass__(cls, of: type[Backend]) -> None:
        cls.of = of
        tests = {part.__name__: [name for name in vars(part) if name.startswith("test_")] for part in PARTS}
        for promise, why in of.not_promised.items():
            assert why.strip(), f"say why {of.__name__} does not promise {promise}"
            for name in tests.get(promise, [promise]):
                assert hasattr(cls, name.partition("[")[0]), f"there is no promise {promise}"
                if "[" not in name:
                    setattr(cls, name, None)  # not collected

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        of, test = self.of, metafunc.function.__name__
        ways = [(face, warm) for face in of.faces for warm in (True, False)]
        cases: dict[str, Iterable[Any]] = {
            "cut": [(face, warm) for face, warm in ways if warm or face not in of.uncut],
            "way": ways,
            "malformed": of.malformed,
            "refusal": of.refusals,
            "stranger": STRANGERS,
            "tls": TLS,
            "verb": VERBS,
            "wrong": of.wrong,
        }
        for name in cases.keys() & set(metafunc.fixturenames):
            wanted = [value for value in cases[name] if f"{test}[{_id(value)}]" not in of.not_promised]
            metafunc.parametrize(name, wanted, ids=_id)


def _id(value: Any) -> str:
    if isinstance(value, tuple) and isinstance(value[-1], bool):
        face, warm = value
        return f"{face}-{'reading' if warm else 'connecting'}"
    return value if isinstance(value, str) and value.isascii() else ascii(getattr(value, "field", value))
