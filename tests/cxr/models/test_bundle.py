"""A bundle is whole or refused, and answers after loading as it did before."""

import dataclasses
import json

import pytest
import torch

from cxr.errors import CxrError
from cxr.models import bundle
from cxr.models.bundle import Bundle
from tests.helpers import network


@pytest.fixture(scope="module")
def made():
    return network(seed=5)


@pytest.fixture
def folder(made, tmp_path):
    bundle.save(Bundle(made, 1.5, {"youden": 0.4}, {"epoch": 3}), tmp_path)
    return tmp_path


def test_it_answers_as_before(made, folder):
    loaded = bundle.load(folder)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.network.module(x), made.module(x))
    assert loaded.network.spec == made.spec
    assert (loaded.network.classes, loaded.temperature) == (made.classes, 1.5)
    assert (loaded.operating_points, loaded.facts) == ({"youden": 0.4}, {"epoch": 3})


def test_the_digest_sees_what_decides_the_answer(made, tmp_path):
    def digest(**changed):
        given = {"network": made, "temperature": 1.0, **changed}
        return bundle.save(Bundle(**given), tmp_path / str(len(list(tmp_path.iterdir()))))

    own = digest()
    assert digest(facts={"epoch": 9}) == own
    assert digest(temperature=2.0) != own
    assert digest(network=network(seed=6)) != own
    assert digest(network=dataclasses.replace(made, views=2)) != own


def test_the_number_of_views_comes_back(made, tmp_path):
    for views in (1, 3):
        digest = bundle.save(Bundle(dataclasses.replace(made, views=views)), tmp_path)
        assert bundle.load(tmp_path).network.views == views
        assert bundle.digest(tmp_path) == digest
        assert ("views" in json.loads((tmp_path / "config.json").read_text())) == (views > 1)


def test_truncated_or_replaced_weights_are_refused(folder, tmp_path):
    file = folder / "model.pt"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CxrError, match=r"model\.pt is not the one that config\.json names .truncated or replaced"):
        bundle.load(folder)
    file.unlink()
    with pytest.raises(CxrError, match=r"has no model\.pt"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: {**values, "format": 99}, "has format 99; this version reads format 2"),
        (lambda values: {k: v for k, v in values.items() if k != "input"}, "lacks input"),
        (lambda values: {**values, "model": "resnet18"}, "does not fit resnet18"),
        (lambda values: {**values, "model": "hf-hub:a/b"}, "names no network that can be built"),
        (lambda values: [], "lacks everything"),
    ],
)
def test_a_config_that_does_not_fit(folder, change, words):
    file = folder / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(CxrError, match=words):
        bundle.load(folder)


def test_a_folder_without_a_bundle(tmp_path):
    with pytest.raises(CxrError, match=r"cannot be read .*give the folder of a bundle"):
        bundle.load(tmp_path)


def test_other_classes_are_refused(made):
    with pytest.raises(CxrError, match="has the classes normal, bacteria, virus, the split has normal, pneumonia"):
        bundle.check_classes(Bundle(made), ("normal", "pneumonia"), "pneumonia")


def test_a_bundle_without_a_finding_is_of_pneumonia(made, folder):
    """As all bundles were once; they keep their files and digests."""
    assert "finding" not in json.loads((folder / "config.json").read_text())
    assert bundle.load(folder).finding == "pneumonia"
    known = {"format", "model", "members", "classes", "input", "temperature", "operating_points", "weights_sha256"}
    assert set(json.loads((folder / "config.json").read_text())) == known | {"facts"}


def test_the_finding_is_kept_counts_and_is_that_of_the_split(made, folder, tmp_path):
    other = Bundle(made, 1.5, {"youden": 0.4}, {"epoch": 3}, finding="infection")
    assert bundle.save(other, tmp_path / "other") != bundle.digest(folder)
    loaded = bundle.load(tmp_path / "other")
    assert loaded.finding == "infection"
    bundle.check_classes(loaded, made.classes, "infection")
    with pytest.raises(CxrError, match="has the finding infection, the split has pneumonia"):
        bundle.check_classes(loaded, made.classes, "pneumonia")
