"""A bucket of its own on this machine: moto's S3 behind a door that can refuse, stall, cut, and lose answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

SECRET = "canary+S3secret/9vQx7xKd2"
BUCKET = "clips"

Fault = Callable[["Request"], str | None]
"""Says what becomes of a request: None for nothing; `403`, `503` or `404` for such an answer; `cut` after half of its
body; `lost` for an answer that never comes; `stall` until the door is `released`, and then cut."""


@dataclass(frozen=True, slots=True)
class Request:
    """What came: the method, the key without the bucket, and the query."""

    method: str
    key: str
    query: str

    @property
    def puts_object(self) -> bool:
        """Whether it puts an output itself."""
        return self.method == "PUT" and self.key.endswith(".mp4")


_ANSWERS = {
    "403": ("403 Forbidden", "AccessDenied"),
    "404": ("404 Not Found", "NoSuchBucket"),
    "503": ("503 Slow Down", "SlowDown"),
}


@dataclass
class Bucket:
    """The bucket, and the door before it."""

    url: str = ""
    fault: Fault = lambda _: None
    seen: list[Request] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def client(self) -> Any:
        """boto3's, as a stranger would use the bucket."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="AKIAOTHER",
            aws_secret_access_key="other",
            region_name="us-east-1",
        )

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket."""
        s3 = self.client
        listed = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: s3.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed}

    def uploads(self) -> list[str]:
        """The keys of uploads in parts that nobody ended."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])]

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def serve(self, inner: Any, environ: dict[str, Any], start: Any) -> Any:
        """One request (WSGI)."""
        key = environ["PATH_INFO"].removeprefix(f"/{BUCKET}").lstrip("/")
        request = Request(environ["REQUEST_METHOD"], key, environ["QUERY_STRING"])
        stranger = "AKIAOTHER" in environ.get("HTTP_AUTHORIZATION", "")
        what = None if stranger else self.fault(request)
        if not stranger:
            self.seen.append(request)
        if what in _ANSWERS:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, code = _ANSWERS[what]
            start(status, [("Content-Type", "application/xml"), ("Connection", "close")])
            return [f"<Error><Code>{code}</Code><Message>told to</Message></Error>".encode()]
        if what in ("cut", "stall"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            if what == "stall":
                self.stalled.set()
                self.released.wait(60)
            return _hang_up(environ)
        if what == "lost":
            list(inner(environ, lambda *_: None))
            return _hang_up(environ)
        return inner(environ, start)


def _hang_up(environ: dict[str, Any]) -> list[bytes]:
    environ["werkzeug.socket"].shutdown(2)
    return []


class _Silent(WSGIRequestHandler):
    def log(self, *_: Any, **__: Any) -> None:
        """Says nothing."""

    def run_wsgi(self) -> None:
        try:
            super().run_wsgi()
        except (OSError, AssertionError):
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Bucket]:
    """A bucket that is there, and empty."""
    bucket, inner = Bucket(), DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1",
        0,
        lambda environ, start: bucket.serve(inner, environ, start),
        threaded=True,
        request_handler=_Silent,
    )
    bucket.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        bucket.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def empty(bucket: Bucket) -> None:
    """Make the bucket anew, and forget what was told and seen."""
    bucket.fault, bucket.seen = lambda _: None, []
    bucket.stalled, bucket.released = threading.Event(), threading.Event()
    s3 = bucket.client
    known = [each["Name"] for each in s3.list_buckets()["Buckets"]]
    if BUCKET in known:
        for key in bucket.objects():
            s3.delete_object(Bucket=BUCKET, Key=key)
        for each in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=BUCKET, Key=each["Key"], UploadId=each["UploadId"])
    else:
        s3.create_bucket(Bucket=BUCKET)
