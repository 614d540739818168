"""Any S3 as an object store. Endpoint and credentials come from the AWS environment only."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from arco_core.errors import StoreError
from infra.storage.backend import ObjectInfo
from infra.storage.errors import AlreadyExists, NotFound

_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_TAKEN = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_SETTINGS = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=10, read_timeout=60)
_session_lock = threading.Lock()


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
            return boto3.session.Session().client("s3", config=_SETTINGS)

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
        with self._errors("read", key):
            return bytes(self.client.get_object(**self._object(key))["Body"].read())

    def write_bytes(self, key: str, data: bytes) -> None:
        """See `Backend`: S3 shows an object when all of it has arrived."""
        with self._errors("write", key):
            self.client.put_object(**self._object(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """See `Backend`: a conditional PUT, which holds on every server (multipart ones do not)."""
        with self._errors("write", key):
            self.client.put_object(**self._object(key), Body=data, IfNoneMatch="*")

    def upload_file(self, local: Path, key: str) -> None:
        """See `Backend`: in parts where the file is large."""
        with self._errors("write", key):
            self.client.upload_file(str(local), self.bucket, self._object(key)["Key"])

    def download_file(self, key: str, local: Path) -> None:
        """See `Backend`."""
        with self._errors("read", key):
            self.client.download_file(self.bucket, self._object(key)["Key"], str(local))

    def entries(self, prefix: str) -> list[ObjectInfo]:
        """See `Backend`."""
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
        """See `Backend`: each read is one ranged GET."""
        with self._errors("read", key):
            size = int(self.client.head_object(**self._object(key))["ContentLength"])
        return cast(BinaryIO, _RangeReader(self, key, size))

    def local_path(self, key: str) -> Path | None:
        """See `Backend`."""
        return None

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`, exclusive."""
        with self._errors("read", key):
            response = self.client.get_object(**self._object(key), Range=f"bytes={start}-{stop - 1}")
            return bytes(response["Body"].read())

    def _object(self, key: str) -> dict[str, str]:
        parts = [part for part in (self.prefix, key) if part]
        return {"Bucket": self.bucket, "Key": "/".join(parts)}

    def _folder(self, prefix: str) -> str:
        """What the keys below `prefix` begin with."""
        return f"{self._object(prefix)['Key'].rstrip('/')}/".lstrip("/")

    def _relative(self, key: str) -> str:
        return key[len(self.prefix) + 1 :] if self.prefix else key

    @contextmanager
    def _errors(self, action: str, key: str) -> Iterator[None]:
        url = f"s3://{self.bucket}/{self._object(key)['Key']}"
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise NotFound(f"{url} does not exist") from error
            if code in _TAKEN:
                raise AlreadyExists(f"{url} exists already and was left as it is") from error
            raise self._failure(action, url, error) from error
        except (BotoCoreError, Boto3Error, OSError) as error:
            raise self._failure(action, url, error) from error

    def _failure(self, action: str, url: str, error: Exception) -> StoreError:
        return StoreError(
            f"cannot {action} {url}: {error}; check the bucket, its policy, and the AWS environment "
            "(AWS_ENDPOINT_URL, AWS_REGION and credentials)"
        )


class _RangeReader(io.RawIOBase):
    """A seekable view of one object."""

    def __init__(self, backend: S3Backend, key: str, size: int) -> None:
        super().__init__()
        self._backend, self._key, self._size, self._position = backend, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._position + len(view), self._size)
        if stop <= self._position:
            return 0
        data = self._backend.read_range(self._key, self._position, stop)
        if len(data) != stop - self._position:
            raise StoreError(
                f"s3://{self._backend.bucket}/{self._key}: {len(data)} bytes came where "
                f"{stop - self._position} were asked for: the object changed while it was read"
            )
        view[: len(data)] = data
        self._position = stop
        return len(data)
