"""Object storage, by the few requests that a complete-or-absent output needs. fsspec and its packages are the clients.

For `s3://` the requests are S3's own, through s3fs: a PUT with `If-None-Match: *`, with the SHA-256 as the store's
checksum and as metadata; large files in parts, completed or aborted. For other schemes fsspec's common calls do: a
look before each write, and a hash by reading. Credentials and endpoints are the packages' own business (AWS_*, ...).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..core.job import Problem
from ..core.places import PACKAGES, Remote
from .fetch import Transient

IN_PARTS = 64 << 20
"""Bytes above which a file is uploaded in parts."""
PIECE = 16 << 20
"""Bytes of a part: S3 takes 10,000 of them, from 5 MiB each (docs.aws.amazon.com, Multipart upload limits)."""
TRIES = 5
"""Requests for one answer, with growing waits of up to 20 s between (botocore, retry mode `standard`)."""
PATIENCE = 60.0
"""Seconds without a byte after which a request is given up."""

_PASSING = frozenset({"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "ConditionalRequestConflict", "Throttling"})
_TASK, _HASH = "batchrunner-task", "batchrunner-sha256"


class StoreUnusable(OSError):
    """The store refuses, is not there, or its package is missing. The message says how to mend it."""

    def __init__(self, message: str) -> None:
        super().__init__(None, message)

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True, slots=True)
class Head:
    """An object that is there.

    Attributes:
        size: in bytes.
        sha256: lower-case hex digest; empty where nobody knows it who can be believed.
        task: the task that it was made for; None where the store keeps no such word.
    """

    size: int
    sha256: str
    task: str | None = None


class Client(Protocol):
    """Requests about objects, by their names below a prefix. Each blocks.

    Raises, each: StoreUnusable; Transient where the same may be asked again soon.
    """

    def prove(self) -> None:
        """Raise unless the prefix may be written to, as far as one can know without leaving anything."""

    def names(self, start: str) -> set[str]:
        """Every object whose name begins so."""

    def head(self, name: str) -> Head | None:
        """What is known of an object; None where it is not there."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Its first bytes; None where it is not there."""

    def fetch(self, name: str, to: Path) -> None:
        """All of it, into a file. Raises FileNotFoundError where it is not there."""

    def create(self, name: str, data: bytes) -> None:
        """A new small object. Raises FileExistsError where the name is taken; nothing was done then."""

    def replace(self, name: str, data: bytes) -> None:
        """A small object, over the one that is there."""

    def upload(self, file: Path, name: str, head: Head) -> None:
        """A new object from a file. Raises FileExistsError as `create`."""

    def abort(self, file: Path) -> None:
        """End what an upload of this file that died has left half done. Raises nothing."""

    def copy(self, source: str, target: str) -> None:
        """The object once more, by another name."""

    def delete(self, name: str) -> None:
        """Remove it, if it is there."""


def connect(place: Remote) -> Client:
    """A client for a prefix. Opens no connection.

    Raises:
        StoreUnusable: a package is missing, or does not take the environment's settings.
    """
    try:
        if place.scheme == "s3":
            return S3(place)
        return Common(place)
    except ImportError as missing:
        package = PACKAGES.get(place.scheme)
        wanted = "'batchrunner[objects]'" if package in (None, "s3fs") else f"'batchrunner[objects]' {package}"
        raise StoreUnusable(
            f"{place}: outputs in object storage need a package that is not installed ({missing.name}): "
            f"pip install {wanted}"
        ) from None
    except (ValueError, OSError) as error:
        raise StoreUnusable(f"{place}: {error}") from None


class S3:
    """S3 and what speaks like it (MinIO, R2, Ceph, ...)."""

    def __init__(self, place: Remote, in_parts: int = IN_PARTS, piece: int = PIECE, tries: int = TRIES) -> None:
        import s3fs

        self._place = place
        self._bucket, _, prefix = place.path.partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._in_parts, self._piece = in_parts, piece
        self._files = s3fs.S3FileSystem(
            skip_instance_cache=True,
            use_listings_cache=False,
            config_kwargs={
                "retries": {"total_max_attempts": tries, "mode": "standard"},
                "connect_timeout": PATIENCE / 2,
                "read_timeout": PATIENCE,
            },
        )
        self._files.retries = 1  # botocore waits and asks again; twice over would be minutes

    def prove(self) -> None:
        """An upload in parts, begun and ended: it takes the right to write, and nothing is to be seen of it."""
        key = self._prefix + ".batchrunner-probe"
        begun = self._ask("create_multipart_upload", Key=key)
        self._ask("abort_multipart_upload", Key=key, UploadId=begun["UploadId"])

    def names(self, start: str) -> set[str]:
        found: set[str] = set()
        more: dict[str, str] = {}
        while True:
            page = self._ask("list_objects_v2", Prefix=self._prefix + start, **more)
            found.update(each["Key"].removeprefix(self._prefix) for each in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def head(self, name: str) -> Head | None:
        try:
            told = self._ask("head_object", Key=self._prefix + name)
        except FileNotFoundError:
            return None
        facts = {key.lower(): value for key, value in told.get("Metadata", {}).items()}
        return Head(int(told["ContentLength"]), facts.get(_HASH, ""), facts.get(_TASK))

    def read(self, name: str, limit: int) -> bytes | None:
        try:
            data: bytes = self._run(self._read, self._prefix + name, limit)
        except FileNotFoundError:
            return None
        return data

    async def _read(self, key: str, limit: int) -> bytes:
        told = await self._files._call_s3("get_object", Bucket=self._bucket, Key=key)
        async with told["Body"] as body:
            data: bytes = await body.read(limit)
        return data

    def fetch(self, name: str, to: Path) -> None:
        self._run(self._files._get_file, f"{self._bucket}/{self._prefix}{name}", str(to))

    def create(self, name: str, data: bytes) -> None:
        self._put(name, data, hashlib.sha256(data).digest(), IfNoneMatch="*")

    def replace(self, name: str, data: bytes) -> None:
        self._put(name, data, hashlib.sha256(data).digest())

    def upload(self, file: Path, name: str, head: Head) -> None:
        facts = {_TASK: head.task or "", _HASH: head.sha256}
        if head.size > self._in_parts:
            self._in_pieces(file, name, facts)
            return
        with file.open("rb") as body:
            self._put(name, body, bytes.fromhex(head.sha256), IfNoneMatch="*", Metadata=facts)

    def abort(self, file: Path) -> None:
        with contextlib.suppress(OSError, ValueError):
            key, _, begun = _note(file).read_text("utf-8").rpartition("\n")
            self._end(key, begun, file)

    def copy(self, source: str, target: str) -> None:
        root = f"{self._bucket}/{self._prefix}"
        self._run(self._files._cp_file, root + source, root + target)

    def delete(self, name: str) -> None:
        self._ask("delete_object", Key=self._prefix + name)

    def _put(self, name: str, body: Any, digest: bytes, **more: Any) -> None:
        self._ask("put_object", Key=self._prefix + name, Body=body, ChecksumSHA256=_base64(digest), **more)

    def _in_pieces(self, file: Path, name: str, facts: Mapping[str, str]) -> None:
        """The upload's id is noted beside the file: what a dead run leaves of it is aborted by the next."""
        key = self._prefix + name
        begun = self._ask("create_multipart_upload", Key=key, Metadata=facts, ChecksumAlgorithm="SHA256")["UploadId"]
        try:
            _note(file).write_text(f"{key}\n{begun}", "utf-8")
            parts: list[dict[str, Any]] = []
            with file.open("rb") as body:
                while data := body.read(self._piece):
                    number, digest = len(parts) + 1, _base64(hashlib.sha256(data).digest())
                    place = {"Key": key, "UploadId": begun, "PartNumber": number}
                    told = self._ask("upload_part", **place, Body=data, ChecksumSHA256=digest)
                    parts.append({"PartNumber": number, "ETag": told["ETag"], "ChecksumSHA256": digest})
            whole = {"UploadId": begun, "MultipartUpload": {"Parts": parts}, "IfNoneMatch": "*"}
            try:
                self._ask("complete_multipart_upload", Key=key, **whole)
            except FileNotFoundError:  # done, and the answer was lost; or ended by somebody: a look will tell
                raise Transient(Problem(f"{self._place}: the upload was not there any more", "store")) from None
        except BaseException:
            self._end(key, begun, file)
            raise
        _note(file).unlink()

    def _end(self, key: str, begun: str, file: Path) -> None:
        with contextlib.suppress(OSError, Transient):
            with contextlib.suppress(FileNotFoundError):
                self._ask("abort_multipart_upload", Key=key, UploadId=begun)
            _note(file).unlink()

    def _ask(self, method: str, **words: Any) -> Any:
        return self._run(self._files._call_s3, method, Bucket=self._bucket, **words)

    def _run(self, request: Callable[..., Any], *arguments: Any, **words: Any) -> Any:
        from fsspec.asyn import sync

        try:
            return sync(self._files.loop, request, *arguments, **words)
        except Exception as error:
            known = self._known(error)
            if known is None:
                raise
            raise known from None

    def _known(self, error: Exception) -> Exception | None:
        """What an error means for the caller; None for one that is a bug."""
        from botocore.exceptions import BotoCoreError, HTTPClientError
        from botocore.exceptions import ConnectionError as NoConnection

        cause = error if error.__cause__ is None else error.__cause__
        answer = getattr(cause, "response", None)
        if not isinstance(answer, dict):
            if isinstance(cause, (HTTPClientError, NoConnection, TimeoutError, ConnectionError)):
                return Transient(Problem(f"{self._place} can't be reached: {type(cause).__name__}", "store"))
            if isinstance(cause, BotoCoreError):  # no credentials, no region, ...
                return StoreUnusable(f"{self._place}: {cause}")
            if type(cause).__module__.startswith("aiohttp"):
                return Transient(Problem(f"{self._place} broke off: {type(cause).__name__}", "store"))
            return error if isinstance(error, OSError) else None
        code = str(answer.get("Error", {}).get("Code", ""))
        status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
        said = f"{self._place}: the store answered {code or 'an error'} (HTTP {status})"
        if status == 412 or code == "PreconditionFailed":
            return FileExistsError(said)
        if code == "NoSuchBucket":
            return StoreUnusable(f"{said}: there is no bucket {self._bucket}; make it, or change output.dir")
        if status == 404:
            return FileNotFoundError(said)
        if status in (401, 403) or code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
            return StoreUnusable(f"{said}; mend the credentials or the rights on the bucket")
        if status >= 500 or status in (408, 429) or code in _PASSING:
            return Transient(Problem(said, "store", status))
        return StoreUnusable(said)


def _note(file: Path) -> Path:
    return file.with_name(file.name + ".upload")


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


class Common:
    """Any other store that fsspec knows. It is looked whether a name is free before it is written, which somebody else
    could race; what an object holds is known by reading it."""

    def __init__(self, place: Remote) -> None:
        import fsspec

        self._files = fsspec.filesystem(place.scheme)
        self._root = place.path

    def prove(self) -> None:
        self._files.exists(self._root.partition("/")[0])

    def names(self, start: str) -> set[str]:
        self._files.invalidate_cache()
        try:
            found = self._files.find(self._root)
        except FileNotFoundError:
            return set()
        names = {str(path).lstrip("/").removeprefix(self._root).lstrip("/") for path in found}
        return {name for name in names if name.startswith(start)}

    def head(self, name: str) -> Head | None:
        digest, size = hashlib.sha256(), 0
        try:
            with self._files.open(self._at(name), "rb") as file:
                while data := file.read(1 << 20):
                    digest.update(data)
                    size += len(data)
        except FileNotFoundError:
            return None
        return Head(size, digest.hexdigest())

    def read(self, name: str, limit: int) -> bytes | None:
        try:
            with self._files.open(self._at(name), "rb") as file:
                data: bytes = file.read(limit)
        except FileNotFoundError:
            return None
        return data

    def fetch(self, name: str, to: Path) -> None:
        self._files.get_file(self._at(name), str(to))

    def create(self, name: str, data: bytes) -> None:
        self._free(name)
        self.replace(name, data)

    def replace(self, name: str, data: bytes) -> None:
        self._files.pipe_file(self._at(name), data)

    def upload(self, file: Path, name: str, head: Head) -> None:
        self._free(name)
        self._files.put_file(str(file), self._at(name))
        del head

    def abort(self, file: Path) -> None:
        """The packages upload in one request or end what they began."""

    def copy(self, source: str, target: str) -> None:
        self._files.cp_file(self._at(source), self._at(target))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._at(name))

    def _free(self, name: str) -> None:
        self._files.invalidate_cache()
        if self._files.exists(self._at(name)):
            raise FileExistsError(os.path.join(self._root, name))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


__all__ = ["S3", "Client", "Common", "Head", "StoreUnusable", "connect"]
