"""Any S3 as an object store. Endpoint and credentials come from the AWS environment only."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra.storage.backend import ObjectInfo
from infra.storage.errors import AlreadyExists, NotFound, Unavailable
from infra.storage.range_reader import RangeReader
from infra.storage.s3_errors import BROKEN_BODY, store_error

SETTINGS = Config(retries={"mode": "standard", "max_attempts": 8}, connect_timeout=10, read_timeout=60)
"""The client asks again by itself, over some seconds, where a request fails or is not answered."""
TRANSFER = TransferConfig(multipart_threshold=32 * 2**20, multipart_chunksize=16 * 2**20, max_concurrency=4)
PAUSES_S = (0.2, 1.0, 5.0)
"""Between attempts that the client does not make: after an answer that broke off, or a conditional PUT."""
_WRITER = "arco-writer"
"""Metadata that tells this writer's object from another's."""
_session_lock = threading.Lock()


@lru_cache(maxsize=8)
def _client(settings: Config, environment: tuple[tuple[str, str], ...]) -> Any:
    """One client for all stores of a process: making one takes longer than many requests.

    `environment` is what boto3 reads, and tells clients apart.
    """
    return boto3.session.Session().client("s3", config=settings)


class S3Backend:
    """Objects below `s3://bucket/prefix`. Can be pickled: each process makes its own client."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix

    def __reduce__(self) -> tuple[type[S3Backend], tuple[str, str]]:
        return S3Backend, (self.bucket, self.prefix)

    @cached_property
    def client(self) -> Any:
        """The boto3 client; safe to share among threads."""
        with _session_lock:  # boto3 builds clients from shared state
            environment = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
            return _client(SETTINGS, tuple(sorted(environment.items())))

    def exists(self, key: str) -> bool:
        """See `Backend`."""
        try:
            with self._errors("read", key):
                self.client.head_object(**self._object(key))
        except NotFound:
            return False
        return True

    def read_bytes(self, key: str) -> bytes:
        """See `Backend`."""
        return self._read(key)

    def write_bytes(self, key: str, data: bytes) -> None:
        """See `Backend`: S3 shows an object when all of it has arrived."""
        with self._errors("write", key):
            self.client.put_object(**self._object(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See `Backend`: a conditional PUT, which holds on every server (multipart ones do not)."""
        writer = uuid.uuid4().hex
        for pause in (*PAUSES_S, None):
            try:
                with self._errors("write", key):
                    self.client.put_object(
                        **self._object(key), Body=data, IfNoneMatch="*", Metadata={_WRITER: writer}
                    )
                return
            except (AlreadyExists, Unavailable) as error:
                # A request whose answer is lost is repeated, and then refused because of itself.
                if self._writer(key) == writer:
                    return
                if pause is None or isinstance(error, AlreadyExists):
                    raise
                time.sleep(pause)

    def _writer(self, key: str) -> str | None:
        """Who created the object by `put_if_absent`, or none."""
        try:
            with self._errors("read", key):
                found = self.client.head_object(**self._object(key))["Metadata"].get(_WRITER)
        except NotFound:
            return None
        return None if found is None else str(found)

    def upload_file(self, local: Path, key: str) -> None:
        """See `Backend`: in parts where the file is large."""
        with self._errors("write", key):
            self.client.upload_file(str(local), self.bucket, self._object(key)["Key"], Config=TRANSFER)

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """See `Backend`. Keys that end in `/` are left out: consoles write such objects to show folders."""
        folder = self._folder(prefix)
        with self._errors("list", prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
            items = [item for page in pages for item in page.get("Contents", ())]
        found = (
            ObjectInfo(
                path=self._relative(item["Key"]),
                bytes=int(item["Size"]),
                modified=item["LastModified"].timestamp(),
                tag=item["ETag"].strip('"'),
            )
            for item in items
            if not item["Key"].endswith("/")
        )
        return sorted(found, key=lambda entry: entry.path)

    def partial_uploads(self, prefix: str) -> list[ObjectInfo]:
        """See `Backend`: multipart uploads, which are stored and paid for until they are ended."""
        folder = self._folder(prefix)
        with self._errors("list", prefix):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=folder
            )
            items = [item for page in pages for item in page.get("Uploads", ())]
        return [
            ObjectInfo(
                path=self._relative(item["Key"]),
                bytes=0,
                modified=item["Initiated"].timestamp(),
                tag=item["UploadId"],
            )
            for item in items
        ]

    def discard(self, upload: ObjectInfo) -> None:
        """See `Backend`."""
        try:
            with self._errors("end the upload of", upload.path):
                self.client.abort_multipart_upload(**self._object(upload.path), UploadId=upload.tag)
        except NotFound:  # it was finished or ended meanwhile
            return

    def clock(self) -> float:
        """See `Backend`: the time that the server gives with an answer."""
        with self._errors("list", ""):
            answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self._folder(""), MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()

    def delete(self, key: str) -> None:
        """See `Backend`."""
        with self._errors("delete", key):
            self.client.delete_object(**self._object(key))

    def open_input(self, key: str) -> BinaryIO:
        """See `Backend`: each read is one ranged GET, of the object as it was when it was opened."""
        with self._errors("read", key):
            head = self.client.head_object(**self._object(key))
        size, tag = int(head["ContentLength"]), str(head["ETag"])
        return cast(BinaryIO, RangeReader(partial(self.read_range, key, tag=tag), size, self._url(key)))

    def local_path(self, key: str) -> Path | None:
        """See `Backend`."""
        return None

    def read_range(self, key: str, start: int, stop: int, *, tag: str | None = None) -> bytes:
        """Bytes `start` to `stop`, exclusive, of the object that has the ETag `tag`."""
        condition = {} if tag is None else {"IfMatch": tag}
        return self._read(key, Range=f"bytes={start}-{stop - 1}", **condition)

    def _read(self, key: str, **options: str) -> bytes:
        """The body of a GET, whole: as long as the server said. Asked for again where it breaks off."""
        with self._errors("read", key):
            for pause in PAUSES_S:
                body = self.client.get_object(**self._object(key), **options)["Body"]
                try:
                    return bytes(body.read())
                except BROKEN_BODY:
                    time.sleep(pause)
            return bytes(self.client.get_object(**self._object(key), **options)["Body"].read())

    def _object(self, key: str) -> dict[str, str]:
        parts = [part for part in (self.prefix, key) if part]
        return {"Bucket": self.bucket, "Key": "/".join(parts)}

    def _folder(self, prefix: str) -> str:
        """What the keys below `prefix` begin with."""
        return f"{self._object(prefix)['Key'].rstrip('/')}/".lstrip("/")

    def _relative(self, key: str) -> str:
        return key[len(self.prefix) + 1 :] if self.prefix else key

    def _url(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._object(key)['Key']}"

    @contextmanager
    def _errors(self, action: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, Boto3Error, ClientError, OSError) as error:
            raise store_error(action, self._url(key), error) from error
