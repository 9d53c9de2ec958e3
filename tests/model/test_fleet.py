"""The section of the fleet: which names, URLs and keys it takes, from code, files and variables, and no secret."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from backpressure import BackpressureConfig, ConfigurationError, FleetConfig, PollingConfig


def load(tables: dict[str, Any]) -> BackpressureConfig:
    return BackpressureConfig.from_mapping(tables)


def test_by_default_a_process_belongs_to_none() -> None:
    assert BackpressureConfig().fleet == FleetConfig(name=None, url=None, key=None)
    assert load({"fleet": {"name": "none"}}).fleet.name is None


@pytest.mark.parametrize("name", ["shop", "a", "0.a_b-C", "x" * 64])
def test_names_of_fleets(name: str) -> None:
    assert FleetConfig(name=name).name == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a{b}", "-a", ".a", "a:b", "ä", 5, True, b"shop", "shop\n"])
def test_what_names_none(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.name is .*: give 1 to 64 letters"):
        FleetConfig(name=name)


@pytest.mark.parametrize(
    "url", ["redis://h:1/0", "rediss+sentinel://a,b/s/0", "valkey+cluster://h", "unix:///s?db=0", "$URL", "${URL}"]
)
def test_urls(url: str) -> None:
    assert load({"fleet": {"name": "shop", "url": url}}).fleet.url == url


@pytest.mark.parametrize("url", ["http://h", "redis://u:secret@h", "redis://h?password=secret", "", "h:1", "$", 5])
def test_what_is_no_url_or_holds_a_password(url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.url is ") as caught:
        FleetConfig(name="shop", url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["a key as it is, long enough", "", "$", 5, b"$KEY"])
def test_a_key_is_the_name_of_a_variable(key: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.key is .*: put the key into an environment variable"):
        FleetConfig(name="shop", key=key)


def test_it_needs_polls() -> None:
    with pytest.raises(ConfigurationError, match=r"^fleet\.name is 'shop': needs polling\.enabled"):
        BackpressureConfig(fleet=FleetConfig(name="shop"), polling=PollingConfig(enabled=False))
    assert BackpressureConfig(polling=PollingConfig(enabled=False)).fleet.name is None


def test_it_is_written_and_read_again() -> None:
    config = load({"fleet": {"name": "shop", "url": "$URL", "key": "$KEY"}})
    assert load(config.to_dict()) == config == pickle.loads(pickle.dumps(config))
    assert BackpressureConfig.from_env({"BACKPRESSURE_FLEET__NAME": "shop"}).fleet == FleetConfig(name="shop")
    assert config.evolve({"fleet.name": None}).fleet.name is None
