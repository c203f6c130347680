"""Paths and URLs as users give them: what each means, and what is refused in one line without repeating a S3CR3T."""

from pathlib import Path

import pytest

from cxr.common import storage
from cxr.common.remote import Remote
from cxr.errors import CxrError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folder/a.png", Path("folder/a.png")),
        ("~/xrays", Path.home() / "xrays"),
        ("file:///data/a%20b.csv", Path("/data/a b.csv")),
        ("s3://bucket", Remote("s3://bucket")),
        ("S3://Bucket/set//train/../", Remote("s3://Bucket/set")),
        ("gs://bucket/set", Remote("gs://bucket/set")),
        ("abfs://set@account.dfs.core.windows.net/a", Remote("abfs://set@account.dfs.core.windows.net/a")),
        ("hdfs://user@node:8020/set", Remote("hdfs://user@node:8020/set")),
        ("hdfs:///set", Remote("hdfs:///set")),
    ],
)
def test_what_a_user_gives_is_a_path_or_a_url(text, expected):
    assert storage.given(text, "data_path") == expected
    assert storage.place(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "ftp://host/S3CR3T",
            "input: unknown scheme ftp://; expected a path, or a URL with s3://, gs://, abfs://, hdfs",
        ),
        ("https://host/S3CR3T.csv", "input: unknown scheme https://"),
        ("s3://AKIA:S3CR3T@bucket/set", "give a plain URL and AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3://AKIA:sec/S3CR3T@bucket/set", "which MLflow has noted"),
        ("s3://S3CR3T@bucket/set", "which MLflow has noted"),
        ("gs://bucket/a.csv?X-Goog-Signature=S3CR3T", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfs://box@account.dfs.core.windows.net/a?sv=1&sig=S3CR3T/1", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("hdfs://user:S3CR3T@node:8020/set", "HADOOP_USER_NAME"),
        ("file://user:S3CR3T@localhost/set", "which MLflow has noted"),
        ("file://other/set", "input=file://other/set: names the host other"),
        ("s3:///set", "input=s3:///set: names no bucket; expected s3://BUCKET/PATH"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secret(text, words):
    with pytest.raises(CxrError) as refused:
        storage.given(text, "input")
    assert words in str(refused.value) and "S3CR3T" not in str(refused.value)


def test_names_are_relative_to_where_they_stand():
    here, there = Path("/set"), Remote("s3://bucket/set")
    assert storage.under(here, "a/b.csv", "x") == Path("/set/a/b.csv")
    assert storage.under(here, "s3://other/b.csv", "x") == Remote("s3://other/b.csv")
    assert storage.under(there, "a/b.csv", "x") == Remote("s3://bucket/set/a/b.csv")
    assert storage.under(there, "../b.csv", "x") == Remote("s3://bucket/b.csv")
    assert storage.under(there, "/b.csv", "x") == Path("/b.csv")
    assert storage.under(there, "~/b.csv", "x") == Path.home() / "b.csv"


def test_parts_of_a_url():
    file = Remote("s3://bucket/set/a.b.csv")
    assert (file.name, file.suffix, file.parent) == ("a.b.csv", ".csv", Remote("s3://bucket/set"))
    assert file.with_name("x") == Remote("s3://bucket/set/x") and str(file.parent / "y/z") == "s3://bucket/set/y/z"
    assert file.top == file.top.top == file.parent.parent == file.top.parent == Remote("s3://bucket")
    assert file.top.name == ""


def test_some_places_must_be_on_this_machine():
    assert storage.local("file:///a", "out") == Path("/a")
    with pytest.raises(CxrError, match="out=s3://bucket/a: expected a path on this machine"):
        storage.local("s3://bucket/a", "out")
