from __future__ import annotations

import os

import pytest
import ray

from infra.ray_session import ray_session

pytestmark = [pytest.mark.dist, pytest.mark.slow]


def test_a_connected_process_stays_connected(ray_address: str) -> None:
    with ray_session(workers=2) as address:
        assert address == ray_address
    assert ray.is_initialized()


def test_there_is_room_for_the_workers_and_one_more(ray_address: str) -> None:
    assert ray.cluster_resources()["CPU"] >= 3


def test_subprocesses_find_the_shared_ray(ray_address: str) -> None:
    assert os.environ["RAY_ADDRESS"] == ray_address
