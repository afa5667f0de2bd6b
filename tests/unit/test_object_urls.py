"""`output.dir` as a URL of object storage: what is taken, what is refused and where, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchrunner.core.places import Remote, place_of
from batchrunner.environment import secrets
from batchrunner.manifest import ManifestError, load

TEXT = """\
version: 1
batch: night
defaults: {{model: kling-3-0-turbo}}
output:
  dir: "{url}"
shots: [{{id: dog, prompt: a dog}}]
"""


def write(folder: Path, url: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(TEXT.format(url=url))
    return path


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("s3://clips/nights/${batch}", "s3://clips/nights/night"),
        ("S3://clips/nights/", "s3://clips/nights"),
        ("s3://clips", "s3://clips"),
        ("gs://my-clips.v2/a b", "gs://my-clips.v2/a b"),
    ],
)
def test_what_is_taken(tmp_path: Path, url: str, means: str) -> None:
    manifest = load(write(tmp_path, url))
    assert manifest.output_dir == Remote(means)
    assert str(manifest.output_dir / "dog.mp4") == f"{means}/dog.mp4"
    assert isinstance(manifest.output_dir, Remote)
    assert manifest.output_dir.name == means.rpartition("/")[2]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "s4://clips/x",
            "'s4':// is not known; s3://, gs://, az://, abfs:// or a folder is allowed",
        ),
        ("memory://clips/x", "'memory':// is not known"),
        ("file:///tmp/x", "'file':// is not known"),
        ("https://clips.example/x", "'https':// is not known"),
        ("s3://AKIA:hunter2@clips/x", "has credentials or a server in its URL"),
        ("s3://AKIA:hunter2/x@clips/x", "has credentials or a server in its URL"),
        ("s3://clips/x?X-Amz-Signature=hunter2", "has no query and no fragment"),
        ("s3://clips/x#hunter2", "has no query and no fragment"),
        ("s3://", "is no name"),
        ("s3:///x", "is no name of a bucket"),
        ("s3://Clips/x", "is no name of a bucket"),
        ("s3://localhost:9000/clips/x", "has credentials or a server in its URL"),
        ("s3://clips/../x", "contains '..', which is not allowed"),
        ("s3://clips//x", "has an empty part"),
        ("s3://clips/a\\nb", "not allowed"),
    ],
)
def test_what_is_refused(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(write(tmp_path, url))
    (finding,) = caught.value.findings
    assert (finding.line, finding.column, finding.path) == (5, 8, "output.dir")
    assert message in finding.message
    assert "hunter2" not in finding.message


def test_the_stores_key_is_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    with pytest.raises(ManifestError) as caught:
        load(write(tmp_path, "s3://clips/wJalrXUtnFEMI/K7MDENG"), secrets=secrets())
    assert "wJalr" not in str(caught.value)


def test_what_a_ledgers_text_for_a_place_means() -> None:
    assert place_of("s3://clips/night") == Remote("s3://clips/night")
    assert place_of("/clips/s3:/night") == Path("/clips/s3:/night")
    assert Remote("s3://clips/night") / "dog" / "dog-1.mp4" == Remote("s3://clips/night/dog/dog-1.mp4")
