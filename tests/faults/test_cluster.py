"""A cluster of three masters loses a node or a slot: only queues there get answers without samples."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from backpressure import Reason
from faults.catalogue import PASSWORD, USER
from faults.producers import BACKLOG
from support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.conftest import Hire

RIGHTS = f"{USER} on >{PASSWORD} ~jobs ~others +llen +cluster|slots +cluster|keyslot +command"
SLOT = 9631  # of "jobs", on the second of three nodes; "others" has slot 734, on the first
HOME, AWAY = 1, 0


@pytest.fixture(scope="module")
def cluster(binary: str) -> Iterator[servers.Cluster]:
    with servers.Cluster(binary=binary, cluster_require_full_coverage="no", user=RIGHTS) as cluster:
        for queue, node in (("jobs", HOME), ("others", AWAY)):
            with cluster.nodes[node].client() as client:
                client.rpush(queue, *range(BACKLOG))
        yield cluster


@contextlib.contextmanager
def frozen(node: servers.Server) -> Iterator[None]:
    node.freeze()
    try:
        yield
    finally:
        node.resume()


@contextlib.contextmanager
def without_the_slot(node: servers.Server) -> Iterator[None]:
    with node.client() as client:
        client.execute_command("CLUSTER", "DELSLOTS", SLOT)
        try:
            yield
        finally:
            client.execute_command("CLUSTER", "ADDSLOTS", SLOT)


@pytest.mark.parametrize(("fault", "error_types"), [(frozen, {"timeout", "deadline"}), (without_the_slot, {"cluster"})])
def test_only_queues_that_lie_there_fall_back(
    cluster: servers.Cluster,
    hire: Hire,
    fault: Callable[[servers.Server], contextlib.AbstractContextManager[None]],
    error_types: set[str],
) -> None:
    crew = hire(cluster.url.replace("://", f"://{USER}:{PASSWORD}@"))
    crew.until_told(Reason.BACKLOG_RED)
    with fault(cluster.nodes[HOME]):
        crew.forget()
        crew.until_told(Reason.FALLBACK_CONSERVATIVE, "jobs", others=Reason.BACKLOG_RED)
        for producer in crew.producers:
            assert error_types & producer.errors().keys()
    crew.until_told(Reason.BACKLOG_RED)


def test_a_plain_url_reads_one_node_and_says_what_to_do(cluster: servers.Cluster, hire: Hire) -> None:
    crew = hire(f"redis://{USER}:{PASSWORD}@{servers.HOST}:{cluster.nodes[AWAY].port}/0")
    crew.until_told(Reason.BACKLOG_RED, "others")
    crew.until_told(Reason.FALLBACK_CONSERVATIVE, "jobs")
    for producer in crew.producers:
        assert "cluster" in producer.errors()
