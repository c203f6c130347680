"""What is written for serving answers as what was evaluated, and says whom it will refer."""

import json
import sys

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation import bands
from cxr.models.bundle import Bundle
from cxr.models.ensemble import combine
from cxr.packaging import package
from cxr.serving import decision
from cxr.serving.ood import OODDetector
from cxr.serving.service import DETECTOR, Service
from steps.registry.identity import requirements
from tests.helpers import datasets, deployed, network, probabilities, settings_with, small_set


def test_served_equals_evaluated_for_every_image(served):
    service = Service(served.folder, threads=2)
    for split in ("val", "test"):
        table = service.answer([file.read_bytes() for file in served.manifest.split(split).files()])
        evaluated = probabilities(served.bundle, served.manifest.split(split))
        answered = table[[f"probability_{name}" for name in served.manifest.classes]].to_numpy()
        np.testing.assert_allclose(answered, evaluated, atol=1e-5)
        assert list(table["label"]) == [served.manifest.classes[index] for index in evaluated.argmax(1)]
        positive = 1 - evaluated[:, 0]
        for point, threshold in decision.operating_points(served.bundle.operating_points).items():
            table = service.answer([file.read_bytes() for file in served.manifest.split(split).files()], point=point)
            told = (table["status"] == "ok").to_numpy()
            wanted = np.where(decision.is_positive(positive, threshold), "pneumonia", "normal")
            assert list(table["decision"][told]) == list(wanted[told])
            undecided = table["reasons"].str.contains("undecided").to_numpy()
            np.testing.assert_array_equal(undecided, decision.in_band(positive, service.bands[point]))


@pytest.mark.slow
def test_referrals_are_counted_as_they_happen(served, tmp_path):
    """At the operating point of the model, whichever that is."""
    other = deployed(tmp_path, operating_point="sensitive", refer_share=0.4)
    assert other.result.operating_point == "sensitive"
    for made in (served, other):
        service = Service(made.folder, threads=2)
        for split in ("val", "test"):
            table = service.answer([file.read_bytes() for file in made.manifest.split(split).files()])
            counted = made.result.referred[split]
            assert (table["status"] == "refer").mean() == pytest.approx(counted.share)
            assert table["reasons"].str.contains("undecided").sum() == counted.reasons["undecided"]
            given, truth = table["status"] != "refer", made.manifest.split(split).labels() > 0
            assert counted.answered.coverage.value == pytest.approx(given.mean())
            if given.any():
                right = (table["decision"] == "pneumonia").to_numpy() == truth
                assert counted.answered.risk.value == pytest.approx((~right)[given].mean())


@pytest.mark.slow
def test_a_network_that_answers_otherwise_is_refused(served, tmp_path):
    other = Bundle(network(seed=7), 1.3, served.bundle.operating_points)
    evaluated = {"val": np.full((len(served.manifest.split("val")), 3), 1 / 3)}
    with pytest.raises(CxrError, match="as ONNX gives other probabilities"):
        package.write(tmp_path / "s", other, datasets(other, served.manifest), settings_with({}).serving, 0, evaluated)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "has_maps"),
    [("vit_tiny_patch16_224", False), ("convnextv2_atto", True), ("resnet26d", True)],
)
def test_a_network_of_timm_is_served_without_timm(tmp_path, monkeypatch, name, has_maps):
    made = deployed(tmp_path, network(f"timm/{name}", size=32))
    assert made.result.largest_difference < 1e-5
    monkeypatch.setitem(sys.modules, "timm", None)
    service = Service(made.folder, threads=1)
    table = service.answer([made.manifest.files()[0].read_bytes()], with_heatmap=True)
    assert table["probability_normal"][0] > 0 and (table["heatmap"][0] is not None) == has_maps
    assert not [line for line in requirements() if line.startswith(("timm", "torch"))]


@pytest.mark.slow
def test_an_ensemble_of_folds_is_judged_by_its_first_member(tmp_path):
    """The others were trained on its validation images: neither their answers nor their features count there."""
    members = [Bundle(network("shufflenet_v2_x0_5", seed=seed)) for seed in (1, 2)]
    bundle, manifest = combine(members), small_set(tmp_path, per_class=24, side=80)
    bundle.facts = {"folds": 2}
    undecided = np.tile([0.5, 0.25, 0.25], (len(manifest.split("val")), 1))
    evaluated = {"val": undecided, "test": probabilities(bundle, manifest.split("test"))}
    made, settings = datasets(bundle, manifest), settings_with({}).serving
    bands = {"argmax": (0.45, 0.55)}  # chosen on all answers out of fold, of which these are a part
    result = package.write(tmp_path / "s", bundle, made, settings, 0, evaluated, bands=bands)
    assert result.referred["val"].reasons["undecided"] == len(undecided)
    assert Service(tmp_path / "s", threads=1).bands == bands
    features = members[0].network.module.get_submodule(members[0].network.head).in_features
    assert OODDetector.load(tmp_path / "s" / DETECTOR).mean.shape == (features,)


def test_bands_are_chosen_on_validation_and_travel_with_the_version(served, tmp_path):
    """The settings alone decide how; what the test split says of them has no part in it."""
    val = served.manifest.split("val")
    truth, score = val.labels() > 0, 1 - probabilities(served.bundle, val)[:, 0]
    points = decision.operating_points(served.bundle.operating_points)
    made, settings = datasets(served.bundle, served.manifest), settings_with({"serving.refer_share": 0.25}).serving
    evaluated = {"val": probabilities(served.bundle, val)}
    package.write(tmp_path, served.bundle, made, settings, 0, evaluated)
    wanted = bands.choose(truth, score, points, settings)
    assert Service(tmp_path, threads=1).bands == wanted
    for name, threshold in points.items():
        assert wanted[name][0] <= threshold <= wanted[name][1]
        assert decision.in_band(score, wanted[name]).mean() <= 0.25
    config = json.loads((tmp_path / "service.json").read_text())
    assert config["format"] == 3 and list(config["bands"]) == ["argmax", "youden", "sensitive"]


def test_an_operating_point_that_the_bundle_lacks(served, tmp_path):
    bare = Bundle(served.bundle.network)
    settings = settings_with({"serving.operating_point": "youden"}).serving
    with pytest.raises(CxrError, match="operating_point=youden; this bundle has argmax"):
        package.write(tmp_path, bare, datasets(bare, served.manifest), settings, 0, {})


def test_files_of_a_served_folder_belong_together(served, tmp_path):
    for name in ("model.onnx", "ood.npz", "service.json"):
        (tmp_path / name).write_bytes((served.folder / name).read_bytes())
    Service(tmp_path, threads=1)
    (tmp_path / "ood.npz").write_bytes(b"other")
    with pytest.raises(CxrError, match=r"ood\.npz is not the one that service\.json names"):
        Service(tmp_path, threads=1)
    facts = json.loads((served.folder / "service.json").read_text())
    for number in (2, 99):
        (tmp_path / "service.json").write_text(json.dumps(facts | {"format": number}))
        with pytest.raises(
            CxrError, match=f"has format {number}; this version reads format 3: make a version of the same"
        ):
            Service(tmp_path, threads=1)
    for band in ([0.6, 0.7], [0.2], None):
        (tmp_path / "service.json").write_text(json.dumps(facts | {"bands": facts["bands"] | {"argmax": band}}))
        with pytest.raises(CxrError, match="is not a complete folder of a served model"):
            Service(tmp_path, threads=1)
    (tmp_path / "service.json").unlink()
    with pytest.raises(CxrError, match="is not a complete folder of a served model"):
        Service(tmp_path, threads=1)
