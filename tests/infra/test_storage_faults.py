"""What stores make of servers and networks that fail: moto behind a proxy that does as it is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.retries.standard import ExponentialBackoff

from arco_core.errors import StoreError
from infra.storage import AlreadyExists, Store, Unavailable, s3
from infra.storage.retry import retrying
from tests.faulty_proxy import FaultyProxy
from tests.s3_servers import S3Server

pytestmark = pytest.mark.s3
CONTENT = bytes(range(256)) * 40


BOTH = pytest.mark.parametrize("proxy", ["moto_server", "real_s3_server"], indirect=True)
"""Where servers may differ; elsewhere it is the client that is tested."""

_RETRIES = {"mode": "standard", "max_attempts": 3}
PATIENT = Config(retries=_RETRIES, connect_timeout=1, read_timeout=30)
IMPATIENT = Config(retries=_RETRIES, connect_timeout=1, read_timeout=1)


@pytest.fixture(scope="module")
def proxies() -> Iterator[dict[str, FaultyProxy]]:
    """One for each server: clients, which take long to make, are kept by endpoint."""
    running: dict[str, FaultyProxy] = {}
    yield running
    for proxy in running.values():
        proxy.close()


@pytest.fixture
def proxy(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, proxies: dict[str, FaultyProxy]
) -> Iterator[FaultyProxy]:
    """In front of a server; clients ask three times, without pauses."""
    name = getattr(request, "param", "moto_server")
    server: S3Server = request.getfixturevalue(name)
    if name not in proxies:
        proxies[name] = FaultyProxy(server.endpoint)
    proxy = proxies[name]
    server.enter(monkeypatch, proxy.url)
    monkeypatch.setattr(s3, "SETTINGS", PATIENT)
    monkeypatch.setattr(s3, "PAUSES_S", (0.0, 0.0))
    smallest = 5 * 2**20  # parts that S3 takes
    transfer = TransferConfig(multipart_threshold=smallest, multipart_chunksize=smallest)
    monkeypatch.setattr(s3, "TRANSFER", transfer)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    yield proxy
    proxy.faults.clear()
    proxy.requests.clear()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait a second where they would a minute."""
    monkeypatch.setattr(s3, "SETTINGS", IMPATIENT)


@pytest.fixture
def store(proxy: FaultyProxy, tmp_path: Path) -> Store:
    store = Store(f"s3://arco/{tmp_path.name}")
    store.write_bytes("x", CONTENT)
    return store


@pytest.mark.parametrize("action", ["500", "503", "reset", "slow", "broken body", "slow body"])
def test_a_read_survives_what_passes(proxy: FaultyProxy, store: Store, action: str, impatient: None) -> None:
    store = Store(store.url)
    fault = proxy.add(action, path="/x", times=1, seconds=1.5)  # type: ignore[arg-type]
    assert store.read_bytes("x") == CONTENT
    assert fault.hits == 1
    fault.hits = 0
    with store.open_input("x") as file:
        file.seek(100)
        assert file.read(1000) == CONTENT[100:1100]
    assert fault.hits == 1


@pytest.mark.parametrize("action", ["500", "503", "reset", "lost answer"])
def test_a_write_survives_what_passes(proxy: FaultyProxy, store: Store, action: str, tmp_path: Path) -> None:
    fault = proxy.add(action, method="PUT", path="/y", times=1)  # type: ignore[arg-type]
    store.write_bytes("y", CONTENT)
    assert store.read_bytes("y") == CONTENT and fault.hits == 1
    fault.hits = 0
    (tmp_path / "file").write_bytes(CONTENT[::-1])
    store.upload_file(tmp_path / "file", "y")
    assert store.read_bytes("y") == CONTENT[::-1] and fault.hits == 1


@pytest.mark.parametrize("action", ["500", "reset", "slow", "broken body"])
def test_a_read_that_never_succeeds_names_url_cause_and_way_out(
    proxy: FaultyProxy, store: Store, action: str, impatient: None
) -> None:
    store = Store(store.url)
    fault = proxy.add(action, path="/x", seconds=1.5)  # type: ignore[arg-type]
    url = re.escape(store.join("x"))
    with pytest.raises(
        Unavailable, match=f"cannot read {url}: .+; the server fails .*and run again"
    ) as caught:
        store.read_bytes("x")
    cause = {
        "500": "InternalError",
        "reset": "onnection",
        "slow": "timeout",
        "broken body": "onnection|bytes",
    }
    assert re.search(cause[action], str(caught.value))
    assert 3 <= fault.hits <= 9


def test_a_server_that_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"cannot list s3://arco/.*AWS_ENDPOINT_URL"):
        Store(store.url).list("a")


@BOTH
def test_a_conditional_put_whose_answer_is_lost_has_won(proxy: FaultyProxy, store: Store) -> None:
    fault = proxy.add("lost answer", method="PUT", path="claim", times=1)
    store.put_if_absent("claim", b"{}")
    assert fault.hits == 1
    with pytest.raises(AlreadyExists):
        store.put_if_absent("claim", b"{}")
    # … also when every answer is lost
    proxy.add("lost answer", method="PUT", path="second")
    store.put_if_absent("second", b"{}")
    assert store.read_bytes("second") == b"{}"


@BOTH
def test_of_racing_claims_whose_answers_are_lost_one_wins(proxy: FaultyProxy, store: Store) -> None:
    proxy.add("lost answer", method="PUT", path="claim", times=3)
    won: list[int] = []

    def claim(number: int) -> None:
        try:
            Store(store.url).put_if_absent("claim", b"{}")
        except AlreadyExists:
            return
        won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


@BOTH
def test_large_files_go_up_in_parts_and_come_down_whole(
    proxy: FaultyProxy, store: Store, tmp_path: Path
) -> None:
    data = CONTENT * 1200  # 12 MiB
    (tmp_path / "large").write_bytes(data)
    fault = proxy.add("500", method="PUT", path="large.*partNumber=2", times=1)
    store.upload_file(tmp_path / "large", "large")
    assert fault.hits == 1
    parts = {match[1] for r in proxy.requests if (match := re.search(r"partNumber=(\d+)", r))}
    assert parts == {"1", "2", "3"}
    broken = proxy.add("broken body", path="large", times=2)
    assert store.read_bytes("large") == data
    assert broken.hits == 2


@BOTH
def test_an_upload_in_parts_that_fails_leaves_no_object_and_no_parts(
    proxy: FaultyProxy, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(CONTENT * 1200)
    proxy.add("500", method="PUT", path="partNumber=2")
    with pytest.raises(Unavailable, match=r"cannot write s3://arco/.*large: .*InternalError"):
        store.upload_file(tmp_path / "large", "large")
    assert not store.exists("large")
    assert store.partial_uploads() == []


def test_an_object_that_is_too_short_is_not_taken_for_whole(proxy: FaultyProxy, store: Store) -> None:
    proxy.add("short object", path="/x")
    with store.open_input("x") as file, pytest.raises(StoreError, match=r"5120 bytes came where|checksum"):
        file.read()
    with pytest.raises(Unavailable, match=r"cannot read s3://arco/.*/x.*checksum"):
        store.read_bytes("x")


@BOTH
def test_an_object_that_changes_while_it_is_read_is_refused(store: Store) -> None:
    with store.open_input("x") as file:
        assert file.read(10) == CONTENT[:10]
        store.write_bytes("x", CONTENT[::-1])
        with pytest.raises(StoreError, match=r"/x changed while it was read: run again when it is whole"):
            file.read(10)


def test_listings_survive_what_passes(proxy: FaultyProxy, store: Store) -> None:
    proxy.add("503", path="list-type=2", times=1)
    proxy.add("reset", path="list-type=2", times=1)
    assert store.list() == ["x"]


@BOTH
def test_a_bucket_that_denies_writes(store: Store, proxy: FaultyProxy) -> None:
    client = boto3.session.Session().client("s3")
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":"s3:PutObject",'
        '"Resource":"arn:aws:s3:::arco-denied/*"}]}'
    )
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    if "arco-denied" not in existing:
        client.create_bucket(Bucket="arco-denied")
    client.put_bucket_policy(Bucket="arco-denied", Policy=policy)
    denied = Store("s3://arco-denied/store")
    with pytest.raises(
        StoreError,
        match=r"s3://arco-denied/store is not writable: .*(403|AccessDenied).*check the bucket's policy",
    ):
        denied.check_writable()


def test_a_server_that_ignores_conditions_is_refused(store: Store, proxy: FaultyProxy) -> None:
    proxy.add("unconditional", method="PUT")
    with pytest.raises(StoreError, match=r"s3://arco/.* replaces an object .*If-None-Match.*use a server"):
        store.check_writable()
    assert store.list() == ["x"]


def test_a_server_without_conditions_is_refused_at_once(store: Store, proxy: FaultyProxy) -> None:
    fault = proxy.add("501", method="PUT", path="arco-probe")
    words = r"not writable: .*NotImplemented.*conditional write .*use one"
    with pytest.raises(StoreError, match=words) as caught:
        store.check_writable()
    assert not isinstance(caught.value, Unavailable) and fault.hits == 1


def test_tries_again_are_for_what_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.storage.retry.PAUSES_S", (0.0, 0.0))
    calls: list[int] = []

    def function(error: Exception, until: int) -> str:
        calls.append(1)
        if len(calls) < until:
            raise error
        return "done"

    assert retrying(lambda: function(Unavailable("x"), 3)) == "done" and len(calls) == 3
    calls.clear()
    with pytest.raises(Unavailable):
        retrying(lambda: function(Unavailable("x"), 9))
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(StoreError):
        retrying(lambda: function(StoreError("denied"), 3))
    assert len(calls) == 1
