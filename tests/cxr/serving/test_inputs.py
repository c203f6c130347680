"""The files that a prediction scores: folders, DICOM trees and lists, here and in a bucket; its output there too."""

import io

import numpy as np
import pandas as pd
import pytest

from cxr.common import remote
from cxr.common.remote import Remote
from cxr.common.storage import given
from cxr.errors import CxrError
from cxr.serving import batch, inputs
from cxr.serving.service import Service
from tests.cxr.imaging.test_dicom import NOISE, file_of


@pytest.fixture
def service(served) -> Service:
    return Service(served.folder, threads=2, version="3")


@pytest.fixture
def tree(tmp_path):
    for name in ("b/2", "a/1.dcm", "a/IM000001"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(file_of(np.tile(NOISE, (2, 2))))
    (tmp_path / "a/README").write_text("no DICOM")
    (tmp_path / "a/EMPTY").write_bytes(b"")
    return tmp_path


def test_lists_and_trees(tree, service):
    assert inputs.list_files(tree) == [str(tree / n) for n in ("a/1.dcm", "a/IM000001", "b/2")]
    (tree / "list.txt").write_text(f"b/2\n\na/none.dcm\n{tree / 'a/1.dcm'}\n")
    paths = inputs.list_files(tree / "list.txt")
    assert paths == [str(tree / "b/2"), str(tree / "a/none.dcm"), str(tree / "a/1.dcm")]
    batch.score(service, paths, tree / "preds.parquet", {}, "m")
    table = pd.read_parquet(tree / "preds.parquet")
    assert list(table["status"] == "error") == [False, True, False]
    assert table.loc[1, "reasons"] == "No such file or directory"


def test_a_list_from_windows_is_read(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa.png\r\nb\u00e9.png\r\n".encode())
    assert inputs.list_files(tmp_path / "list.txt") == [str(tmp_path / "a.png"), str(tmp_path / "b\u00e9.png")]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none", None, "does not exist"),
        ("empty.txt", b"\n\n", "the list is empty"),
        ("x.txt", b"\xff\xfe", "not a list of paths"),
        ("url.txt", b"a.png\ns3://key:S3CR3T@box/a.png\n", "input: the URL holds a user, a password"),
        ("ftp.txt", b"ftp://host/a.png\n", "input: unknown scheme ftp://"),
    ],
)
def test_inputs_that_cannot_be(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CxrError, match=words) as refused:
        inputs.list_files(tmp_path / name)
    assert "S3CR3T" not in str(refused.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CxrError, match="no images below it"):
        inputs.list_files(tmp_path / "folder")


def test_a_bucket_is_listed_and_scored_as_a_folder_is(bucket, tree, service):
    there = Remote(bucket.put_tree(tree, "in"))
    assert inputs.list_files(there) == [f"s3://xrays/in/{n}" for n in ("a/1.dcm", "a/IM000001", "b/2")]
    assert inputs.list_files(there / "a/1.dcm") == ["s3://xrays/in/a/1.dcm"]
    bucket.put("in/list.txt", f"b/2\n../in/a/1.dcm\ns3://xrays/in/none.dcm\n{tree / 'b/2'}\n".encode())
    paths = inputs.list_files(there / "list.txt")
    assert paths == [*(f"s3://xrays/in/{n}" for n in ("b/2", "a/1.dcm", "none.dcm")), str(tree / "b/2")]
    (tree / "list.txt").write_text("s3://xrays/in/b/2\nb/2\n")
    assert inputs.list_files(tree / "list.txt") == ["s3://xrays/in/b/2", str(tree / "b/2")]
    bucket.proxy.cuts = [100]
    batch.score(service, paths, tree / "preds.parquet", {}, "m")
    table = pd.read_parquet(tree / "preds.parquet")
    assert list(table["path"]) == paths and list(table["status"] == "error") == [False, False, True, False]
    assert table.loc[2, "reasons"] == "No such file or directory" and remote.take_retries() == 1
    assert table.loc[0, "probability_normal"] == table.loc[3, "probability_normal"]
    with pytest.raises(CxrError, match="input=s3://none/in does not exist, nor does s3://none; give a folder"):
        inputs.list_files(Remote("s3://none/in"))


def test_an_object_that_has_changed_has_another_identity_and_none_is_read_for_it(bucket, tmp_path):
    (tmp_path / "b.png").write_bytes(b"1")
    paths = [bucket.put("in/a.png", b"1"), f"{bucket.url}/in/none.png", str(tmp_path / "b.png")]
    before = inputs.identities(paths)
    assert before[1] == "" and before == inputs.identities(paths)
    bucket.put("in/a.png", b"2")
    after = inputs.identities(paths)
    assert after[0] != before[0] and after[1:] == before[1:] and bucket.reads() == []


def test_only_as_much_is_read_of_an_object_as_is_accepted(bucket):
    url = bucket.put("large.png", bytes(100_000))
    assert inputs.read_file(url, 10) == (bytes(11), "")
    assert inputs.read_file(bucket.put("empty.png", b""), 10) == (b"", "")
    bucket.proxy.always = 5
    with pytest.raises(CxrError, match="large.png: 5 attempts failed"):
        inputs.read_file(url, 10)


def test_an_output_in_a_bucket_is_whole_and_a_killed_run_resumes(bucket, tree, service, monkeypatch):
    monkeypatch.setattr(batch, "SHARD_ROWS", 2)
    paths, output = [str(tree / "a/1.dcm")] * 7, given(f"{bucket.url}/out/preds.parquet", "output")
    write, scored = remote.Remote.write, []

    def killed(file, content):
        if file.name == "shard-000002.parquet":
            raise KeyboardInterrupt
        write(file, content)

    class Counting(Service):
        def answer(self, values, **options):
            scored.extend(values)
            return super().answer(values, **options)

    service.__class__ = Counting
    with monkeypatch.context() as patched:
        patched.setattr(remote.Remote, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            batch.score(service, paths, output, {}, "m")
    shards = "out/preds.parquet.shards"
    assert bucket.keys() == [f"{shards}/{n}" for n in ("plan.json", "shard-000000.parquet", "shard-000001.parquet")]
    scored.clear()
    assert sum(batch.score(service, paths, output, {}, "m").values()) == 7
    assert len(scored) == 3 and bucket.keys() == ["out/preds.parquet"]
    table = pd.read_parquet(io.BytesIO(bucket.get("out/preds.parquet")))
    assert list(table["path"]) == paths
    scored.clear()
    assert sum(batch.score(service, paths, output, {}, "m").values()) == 7 and not scored
    with pytest.raises(CxrError, match="already holds other results"):
        batch.score(service, paths, output, {}, "other")
    with pytest.raises(CxrError, match="plan.json: cannot be written, s3://none does not exist"):
        batch.score(service, paths, Remote("s3://none/preds.parquet"), {}, "m")
