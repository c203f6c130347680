"""On real X-rays: few of them are referred, and nearly all of what is no upright chest X-ray."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bench.strangers import KINDS, strangers
from cxr.common.files import sha256_of
from cxr.datasets import layouts, split
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.imaging import decode
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from cxr.packaging.export_onnx import to_onnx
from cxr.packaging.outputs import run
from cxr.packaging.package import write
from cxr.serving.service import Service
from cxr.serving.session import Session
from tests.helpers import CLASSES, datasets, network, probabilities, settings_with

COUNT = 60  # of each kind


@pytest.fixture(scope="module")
def manifest(real_data) -> Manifest:
    """600 training, 300 validation and 60 test images, whole patients."""
    found = pd.DataFrame([vars(item) for item in layouts.scan(real_data)])
    found["patient"] = found["official_split"].fillna("all") + "/" + found["patient"]
    rows = split.assign(found, names=CLASSES, val_size=0.3, test_size=0.1, subset_size=None, seed=0)
    rows = rows.sample(frac=1, random_state=0)
    parts = {"train": 600, "val": 300, "test": COUNT}
    rows = pd.concat([rows[rows["split"] == name].head(count) for name, count in parts.items()])
    rows["sha256"] = [sha256_of(real_data / path) for path in rows["path"]]
    return Manifest(rows.assign(width=0, height=0, mode="")[COLUMNS].reset_index(drop=True), real_data, CLASSES)


@pytest.fixture(scope="module")
def bundle(manifest) -> Bundle:
    """EfficientNet-Lite0 with ImageNet's weights and a head fitted on its features."""
    net = network(size=224)
    train = manifest.split("train")
    features = run(Session(to_onnx(Bundle(net)), 2, 224), ImageDataset(train, net.spec), np.arange(len(train))).features
    fitted = LogisticRegression(C=0.05, max_iter=500).fit(features, train.labels())
    head = net.module.get_submodule(net.head)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.coef_))
        head.bias.copy_(torch.from_numpy(fitted.intercept_))
    return Bundle(net)


@pytest.fixture(scope="module")
def service(manifest, bundle, tmp_path_factory) -> Service:
    """What is registered of it."""
    folder = tmp_path_factory.mktemp("service")
    evaluated = {"val": probabilities(bundle, manifest.split("val"))}
    # Apart from those it cannot decide, which say more of this simple head than of the detector.
    settings = settings_with({"serving.refer_share": 0}).serving
    write(folder, bundle, datasets(bundle, manifest), settings, 0, evaluated)
    return Service(folder, threads=2)


def referred(service: Service, files: list[bytes]) -> float:
    tables = [service.answer(files[start : start + 60]) for start in range(0, len(files), 60)]
    return float(np.mean(pd.concat(tables)["status"] == "refer"))


@pytest.mark.slow
def test_served_equals_evaluated_on_real_xrays(service, manifest, bundle):
    files = [file.read_bytes() for file in manifest.split("test").files()]
    table = service.answer(files)
    evaluated = probabilities(bundle, manifest.split("test"))
    np.testing.assert_allclose(table[[f"probability_{name}" for name in CLASSES]].to_numpy(), evaluated, atol=1e-4)
    assert list(table["label"]) == [CLASSES[index] for index in evaluated.argmax(1)]


@pytest.mark.slow
def test_few_xrays_are_referred(service, manifest):
    files = [file.read_bytes() for file in manifest.split("val").files()]
    assert referred(service, files) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_nearly_all_of_what_is_no_upright_xray_is_referred(service, manifest, kind):
    xrays = [decode.decode_grey(file.read_bytes()) for file in manifest.split("test").files()]
    assert referred(service, strangers(kind, COUNT, xrays)) >= 0.95
