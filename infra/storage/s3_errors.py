"""What went wrong at an S3, in words that a user can act on."""

from __future__ import annotations

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as ServerConnectionError

from arco_core.errors import StoreError
from infra.storage.errors import AlreadyExists, NotFound, Unavailable

BROKEN_BODY = (FlexibleChecksumError, HTTPClientError, IncompleteReadError)
"""An answer that began well, and did not end, or is not what the server stored."""
_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchUpload"}
_TAKEN = {"412", "PreconditionFailed"}
_DENIED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_BUSY = {"429", "SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "ConditionalRequestConflict", "409"}


def error_code(error: ClientError) -> str:
    """The code that the server gave: `NoSuchKey`, `412`, …"""
    return str(error.response.get("Error", {}).get("Code", ""))


def store_error(action: str, url: str, error: Exception) -> StoreError:
    """The error to raise for `error`, which stopped the attempt to `action` the object or folder `url`."""
    if isinstance(error, Boto3Error):  # of a transfer in parts, which wraps the error that stopped it
        cause = getattr(error, "last_exception", None) or error.__context__
        error = cause if isinstance(cause, Exception) else error
    if isinstance(error, ClientError):
        code = error_code(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _MISSING:
            return NotFound(f"{url} does not exist")
        if code in _TAKEN and action == "write":
            return AlreadyExists(f"{url} exists already and was left as it is")
        if code in _TAKEN:
            return StoreError(f"{url} changed while it was read: run again when it is whole")
        if status == 501:
            return _failure(
                action, url, error,
                "the server does not know this kind of request, such as a conditional write "
                "(If-None-Match): use one that does, as AWS, MinIO and Ceph do",
            )  # fmt: skip
        if status >= 500 or code in _BUSY:
            return _unavailable(action, url, error)
        if code in _DENIED:
            return _failure(
                action, url, error, "check the bucket's policy and the credentials of the AWS environment"
            )
    elif isinstance(error, (*BROKEN_BODY, ConnectionError, ServerConnectionError)):
        return _unavailable(action, url, error)
    elif isinstance(error, NoCredentialsError):
        return _failure(action, url, error, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
    elif not isinstance(error, BotoCoreError):  # of the local disk, or of the transfer
        return _failure(action, url, error, "check the bucket, and the space left on the local disk")
    return _failure(action, url, error, "check the bucket, its policy, and AWS_ENDPOINT_URL and AWS_REGION")


def _failure(action: str, url: str, error: Exception, way_out: str) -> StoreError:
    return StoreError(f"cannot {action} {url}: {error}; {way_out}")


def _unavailable(action: str, url: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"cannot {action} {url}: {error}; the server fails or does not answer, although it was asked several "
        "times: see whether it is up (AWS_ENDPOINT_URL), and run again"
    )
