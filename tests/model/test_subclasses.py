"""A configuration with one section more, as a user or a new law would write it, loads as every other does."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from backpressure import BackpressureConfig, BackpressureController, ConfigurationError, QueueConfig
from backpressure import InMemoryStatsProvider as Memory
from backpressure._model.config.fields import Section, duration, instance, integer, optional
from backpressure._model.config.root import queue_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@attrs.frozen(kw_only=True)
class Quota(Section):
    """Made with the helpers of this package."""

    _path = "quota"

    most: int = integer(10, 1)
    every: float = duration(1.0)

    _own_rules = (("every", lambda seconds: seconds >= 1 or "must be at least 1 s"),)


def _small(_: object, field: attrs.Attribute[Any], value: int) -> None:
    if value > 9:
        raise ValueError(f"{field.name} is too high")


@attrs.frozen
class Alarm:
    """Made with attrs alone."""

    level: int = attrs.field(default=3, converter=int, validator=_small)
    silent: int = 0

    def __attrs_post_init__(self) -> None:
        if self.silent > self.level:
            raise ValueError("nobody would hear it")


@attrs.frozen(kw_only=True)
class Queue(QueueConfig):
    quota: Quota | None = optional(Quota)


@attrs.frozen(kw_only=True)
class Config(BackpressureConfig):
    quota: Quota = instance(Quota, Quota())
    alarm: Alarm = Alarm()
    queues: Mapping[str, Queue] = queue_table(Queue)


TABLES: dict[str, Any] = {
    "quota": {"every": "2s"},
    "alarm": {"level": "5"},
    "polling": {"interval": 9},
    "queues": {"mail": {"quota": {"most": 7}, "curve": {"shed_permille": 1}}},
}


def flat(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(TABLES))
    return path


@pytest.fixture
def config() -> Config:
    return Config.from_mapping(TABLES)


@pytest.mark.parametrize(
    "load",
    [
        lambda _: Config.from_mapping(TABLES),
        lambda folder: Config.from_file(flat(folder)),
        lambda _: Config.from_env(
            {
                "BACKPRESSURE_QUOTA__EVERY": "2s",
                "BACKPRESSURE_ALARM__LEVEL": "5",
                "BACKPRESSURE_POLLING__INTERVAL": "9",
                "BACKPRESSURE_QUEUES": json.dumps(TABLES["queues"]),
            }
        ),
        lambda _: Config().evolve({"quota.every": 2, "alarm.level": 5, "polling.interval": 9, **TABLES}),
        lambda _: BackpressureConfig.from_mapping({}, Config.from_mapping(TABLES)),
        lambda _: Config.from_mapping(Config.from_mapping(TABLES).to_dict()),
        lambda _: Config.from_mapping(
            {key: TABLES[key] for key in ("quota", "alarm")},
            BackpressureConfig.from_mapping({"polling": TABLES["polling"]}),
        ).evolve({"queues": TABLES["queues"]}),
    ],
    ids=["mapping", "file", "environment", "evolve", "base", "dict", "base of the shared class"],
)
def test_every_way_to_load_gives_the_subclass(load: Callable[[Path], Config], tmp_path: Path, config: Config) -> None:
    loaded = load(tmp_path)
    assert type(loaded) is Config
    assert loaded == config
    assert (loaded.quota, loaded.alarm) == (Quota(every=2), Alarm(5))
    assert type(loaded.queues["mail"]) is Queue
    assert loaded.queues["mail"].quota == Quota(every=2, most=7)
    assert loaded.polling.interval == 9
    assert loaded.to_dict()["alarm"] == {"level": 5, "silent": 0}


def test_nothing_gives_the_defaults_of_the_subclass() -> None:
    assert type(Config.from_mapping({})) is Config
    assert Config.from_mapping({}) == Config.from_env({}) == Config()


def test_a_copy_is_of_the_subclass(config: Config) -> None:
    for twin in (pickle.loads(pickle.dumps(config)), copy.copy(config), copy.deepcopy(config), attrs.evolve(config)):
        assert type(twin) is Config
        assert twin == config
    config.validate()


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"quota": {"most": 0}}, "quota.most is 0: give an integer of at least 1"),
        ({"quota": {"every": "10ms"}}, "quota.every is 0.01: must be at least 1 s"),
        ({"quota": {"mots": 1}}, "quota.mots is unknown: did you mean most?"),
        ({"queues": {"mail": {"quota": {"most": 0}}}}, 'queues."mail".quota.most is 0: give an integer of at least 1'),
        ({"queues": {"mail": {"alarm": {}}}}, 'queues."mail".alarm is unknown: give thresholds, curve, circuit, age, '),
        ({"alarm": {"level": 10}}, "alarm.level is 10: level is too high"),
        ({"alarm": {"level": "high"}}, "alarm.level is 'high': invalid literal for int()"),
        ({"alarm": {"silent": 4}}, "alarm is refused: nobody would hear it"),
        ({"alarm": 3}, "alarm is 3: give a table of settings"),
    ],
)
def test_what_is_wrong_with_it_is_told_with_its_path(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.from_mapping(tables)
    (fault,) = caught.value.faults
    assert str(fault).startswith(message)


def test_code_is_checked_too() -> None:
    with pytest.raises(ConfigurationError, match=r'queues."mail" is .*: give a Queue$'):
        Config(queues={"mail": QueueConfig()})  # type: ignore[dict-item]


def test_a_controller_takes_it(config: Config) -> None:
    with BackpressureController(config, Memory({"mail": 0})) as controller:
        controller.reconfigure(config.evolve({"alarm.level": 4}))
        assert controller.suggest_throttle("low", "mail").delay == 0
