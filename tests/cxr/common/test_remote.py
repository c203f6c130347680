"""Files on a real S3 server: read, listed and written as local ones are, and told in one line when that fails."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from fsspec.registry import _registry

from cxr.common import remote, storage
from cxr.common.remote import Remote
from cxr.errors import CxrError

TREE = {"train/a.png": b"1", "train/b.txt": b"22", ".hidden/c.png": b"3", "__MACOSX/d.png": b"4", "e.png": b""}


def test_what_is_there_is_seen_as_a_local_folder_is(bucket, tmp_path):
    for name, data in TREE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    there = Remote(bucket.put_tree(tmp_path, "set"))
    assert sorted(storage.below(there)) == sorted(storage.below(tmp_path)) == ["e.png", "train/a.png", "train/b.txt"]
    assert storage.names(there) == storage.names(tmp_path) and storage.names(there / "none") == set()
    for name in (*TREE, "train", "none", "train/none"):
        here, other = tmp_path / name, there / name
        seen = [(place.exists(), place.is_dir(), place.is_file(), storage.size(place)) for place in (here, other)]
        assert seen[0] == seen[1], name
        if name in TREE:
            assert other.read_bytes() == here.read_bytes() == TREE[name] and storage.read(other, 1) == TREE[name][:1]
            assert storage.sha256_of(other) == storage.sha256_of(here)
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        (there / "none").read_bytes()


def test_another_content_has_another_identity_which_costs_no_reading(bucket):
    file = Remote(bucket.put("set/a.png", b"one"))
    one, listed = file.identity(), file.parent.listed()
    bucket.put("set/a.png", b"two")
    assert file.parent.listed() != listed and file.identity() != one
    bucket.put("set/a.png", b"one")
    assert file.identity() == one and bucket.reads() == []


def test_a_file_is_written_whole_and_read_in_parts(bucket, monkeypatch):
    monkeypatch.setattr(remote, "_PART", 1000)
    data = bytes(range(256)) * 20
    file = Remote(f"{bucket.url}/out/a.bin")
    storage.write(file, data)
    storage.write(file.with_name("b.bin"), lambda opened: opened.write(data))
    assert bucket.get("out/a.bin") == bucket.get("out/b.bin") == data
    with file.open("rb") as opened:
        assert opened.read(10) == data[:10] and opened.seek(-5, 2) == len(data) - 5 and opened.read() == data[-5:]
    assert len(bucket.reads()) == 2
    with file.open("rb") as opened:
        assert opened.read() == data
    file.parent.remove({"a.bin", "none"})
    assert bucket.keys() == ["out/b.bin"]


def test_a_connection_that_breaks_is_made_again_and_counted(bucket):
    file = Remote(bucket.put("a.png", b"x" * 5000))
    bucket.proxy.cuts = [100, 4999]
    assert file.read_bytes() == b"x" * 5000
    assert len(bucket.reads()) == 3 and remote.take_retries() == 2 and remote.take_retries() == 0


def test_a_busy_store_is_asked_again(bucket):
    bucket.put("set/a.png", b"x")
    bucket.proxy.busy = 2
    assert list(Remote(f"{bucket.url}/set").listed()) == ["a.png"] and remote.take_retries() == 2


def test_a_connection_that_always_breaks_is_one_line(bucket):
    file = Remote(bucket.put("a.png", b"x" * 5000))
    bucket.proxy.always = 100
    with pytest.raises(CxrError, match=f"{file}: 5 attempts failed, the last with: .*; start again when"):
        file.read_bytes()
    assert len(bucket.reads()) == 5 and remote.take_retries() == 4


def test_a_server_that_is_not_there_is_one_line(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CxrError, match=r"s3://xrays/a: 5 attempts failed, .*127\.0\.0\.1:9"):
        Remote("s3://xrays/a").exists()


def test_without_credentials_the_error_names_their_variables(bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(CxrError, match="s3://xrays/a: no credentials .*; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS"):
        Remote("s3://xrays/a").read_bytes()
    assert remote.take_retries() == 0


def test_credentials_that_do_not_count_are_refused_at_once(bucket):
    bucket.proxy.denied = True
    for ask in (Remote("s3://xrays/a").read_bytes, Remote("s3://xrays/a").exists, Remote("s3://xrays").listed):
        with pytest.raises(CxrError, match=r"s3://xrays(/a)?: access is denied .*; see AWS_ACCESS_KEY_ID"):
            ask()
    assert remote.take_retries() == 0


def test_a_bucket_that_is_not_there_is_told(bucket):
    file = Remote("s3://none/set/a.png")
    assert not file.exists() and not file.parent.is_dir() and not file.top.exists()
    assert storage.why_missing(file) == "does not exist, nor does s3://none"
    assert storage.why_missing(Remote("s3://xrays/set/a.png")) == "does not exist"
    for content in (b"data", lambda opened: opened.write(b"data")):
        with pytest.raises(CxrError, match="a.png: cannot be written, s3://none does not exist; make"):
            storage.write(file, content)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("abfs", "adlfs")])
def test_a_missing_package_is_named(monkeypatch, scheme, package):
    monkeypatch.delitem(_registry, scheme, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    remote._file_system.cache_clear()
    words = f"{scheme}://box: {scheme}:// needs {package}: pip install -r requirements-cloud.txt"
    with pytest.raises(CxrError, match=f"^{re.escape(words)}$"):
        Remote(f"{scheme}://box/a").exists()


def test_hdfs_without_its_library_says_what_it_needs():
    with pytest.raises(CxrError, match="hdfs://node:8020: hdfs:// needs pyarrow with Hadoop's libhdfs and Java"):
        Remote("hdfs://node:8020/a").exists()


def test_a_bug_is_not_taken_for_a_fault_of_the_network(bucket):
    with pytest.raises(TypeError):
        Remote("s3://xrays/a")._call("cat_file")
    assert remote.take_retries() == 0


def test_retries_of_threads_are_counted_together(bucket):
    urls = [bucket.put(f"{number}.png", b"x" * 3000) for number in range(12)]
    bucket.proxy.cuts = [10] * 8
    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(_length, urls)) == {3000}
    assert remote.take_retries() == 8


def _length(url: str) -> int:
    return len(Remote(url).read_bytes())
