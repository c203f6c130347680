"""Weights are those that were asked for, or an error says where to put them; no file can run code."""

import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision

from cxr.common.files import sha256_of
from cxr.errors import CxrError
from cxr.models import weights
from cxr.models.normalise import Normalise
from tests.helpers import network


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that stands for download.pytorch.org: SqueezeNet's address points to it."""
    (tmp_path / "www").mkdir()
    (tmp_path / "hub").mkdir()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www")))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state = torchvision.models.mobilenet_v3_small(weights=None).state_dict()
    torch.save(state, tmp_path / "made.pth")
    name = f"mobilenet-{sha256_of(tmp_path / 'made.pth')[:8]}.pth"
    (tmp_path / "made.pth").rename(tmp_path / "www" / name)
    entry = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT
    moved = type(entry.value)(f"http://127.0.0.1:{server.server_address[1]}/{name}", entry.transforms, entry.meta)
    monkeypatch.setattr(entry, "_value_", moved)
    yield tmp_path / "www" / name, state
    server.shutdown()
    server.server_close()
    thread.join()


def test_weights_are_downloaded_and_checked(server):
    _, state = server
    found = weights.state("mobilenet_v3_small", "imagenet")
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_damaged_download_is_refused(server):
    file, _ = server
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CxrError, match=r"the download is damaged .*model\.weights=FILE\.pth.*trains from scratch"):
        weights.state("mobilenet_v3_small", "imagenet")


def test_no_connection_says_where_to_put_the_file(server):
    file, _ = server
    file.unlink()
    with pytest.raises(CxrError, match=r"be downloaded .*put the file at .*hub/checkpoints/mobilenet.*from scratch"):
        weights.state("mobilenet_v3_small", "imagenet")


def test_a_file_that_was_put_there_is_taken(server, tmp_path):
    file, state = server
    target = tmp_path / "hub/checkpoints" / file.name
    target.parent.mkdir()
    file.rename(target)  # the server has it no more
    assert weights.state("mobilenet_v3_small", "imagenet").keys() == state.keys()


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("run-by-pickle"),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "evil.pkl"):
        with pytest.raises(CxrError, match=r"holds more than tensors|not a file of weights"):
            weights.state("resnet18", str(tmp_path / name))
    assert not (tmp_path / "run-by-pickle").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "damaged or not a file of weights"),
        ({"model": {"a": torch.ones(1)}}, "is not a state dict; save the state dict alone"),
        ([torch.ones(1)], "is not a state dict"),
    ],
)
def test_files_that_are_no_state_dict(tmp_path, content, words):
    file = tmp_path / "x.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(CxrError, match=words):
        weights.state("resnet18", str(file))


def test_no_such_file(tmp_path):
    with pytest.raises(CxrError, match="no such file; expected imagenet, none"):
        weights.state("resnet18", str(tmp_path / "none.pth"))


def test_every_architecture_has_the_input_of_its_weights():
    assert weights.input_spec("efficientnet_v2_s").size == 384
    large = weights.input_spec("efficientnet_v2_l")
    assert (large.size, large.interpolation, large.mean) == (480, "bicubic", (0.5, 0.5, 0.5))
    assert weights.input_spec("resnet18").resize == 256


@pytest.mark.parametrize("name", ["densenet121", "timm/densenet121"])
def test_weights_of_one_channel_see_in_three_what_they_saw_in_one(tmp_path, caplog, name):
    """As torchxrayvision has them: DenseNet121 of one channel and 18 outputs, on pixels from -1024 to 1024."""
    given = torchvision.models.densenet121(weights=None, num_classes=18).eval()
    given.features.conv0 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    torch.save(given.state_dict() | {"op_threshs": torch.zeros(18)}, tmp_path / "xrv.pth")
    caplog.set_level("INFO")
    made = network(name, weights=tmp_path / "xrv.pth", input_range=[-1024, 1024])
    assert "features.conv0.weight sees one channel; spread over three" in caplog.text
    assert "WARNING" not in caplog.text
    grey = torch.randint(0, 256, (2, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ranged = (2 * grey[:, None].float() / 255 - 1) * 1024
    with torch.no_grad():
        theirs, ours = given.features(ranged).relu(), made.module.features(Normalise(made.spec)(grey)).relu()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
    # Without a range, the three channels are equal all the same, and the log says what may be missing.
    plain = network(name, weights=tmp_path / "xrv.pth")
    assert len(set(plain.spec.mean)) == len(set(plain.spec.std)) == 1
    assert "weights of torchxrayvision need -P model.input_range=[-1024,1024]" in caplog.text
    with pytest.raises(CxrError, match=r"resnet18, model\.weights=.*: weights of another architecture"):
        network("resnet18", weights=tmp_path / "xrv.pth")


def test_a_range_of_the_input_is_black_then_white():
    spec = network(input_range=[-1, 3]).spec
    grey = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 2)
    torch.testing.assert_close(Normalise(spec)(grey)[0, :, 0], torch.tensor([[-1.0, 3.0]] * 3))
    with pytest.raises(CxrError, match="expected black first, then a larger number for white"):
        network(input_range=[1, 1])
