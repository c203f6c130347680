"""A simple model of real X-rays; tests that use it share a process, by `xdist_group("real_bundle")`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cxr.common.files import sha256_of
from cxr.datasets import layouts, split
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.imaging import decode
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from cxr.packaging.export_onnx import to_onnx
from cxr.packaging.outputs import run
from cxr.packaging.package import write
from cxr.serving.session import Session
from tests.helpers import CLASSES, datasets, network, probabilities, settings_with


@pytest.fixture(scope="session")
def real_manifest(real_data) -> Manifest:
    """600 training, 300 validation and 60 test images, whole patients."""
    found = pd.DataFrame([vars(item) for item in layouts.scan(real_data)])
    found["patient"] = found["official_split"].fillna("all") + "/" + found["patient"]
    rows = split.assign(found, names=CLASSES, val_size=0.3, test_size=0.1, subset_size=None, seed=0)
    rows = rows.sample(frac=1, random_state=0)
    parts = {"train": 600, "val": 300, "test": 60}
    rows = pd.concat([rows[rows["split"] == name].head(count) for name, count in parts.items()])
    rows["sha256"] = [sha256_of(real_data / path) for path in rows["path"]]
    sizes = np.array([decode.read_grey(real_data / path).shape[::-1] for path in rows["path"]])
    rows = rows.assign(width=sizes[:, 0], height=sizes[:, 1], mode="")
    return Manifest(rows[COLUMNS].reset_index(drop=True), real_data, CLASSES)


@pytest.fixture(scope="session")
def real_bundle(real_manifest) -> Bundle:
    """EfficientNet-Lite0 with ImageNet's weights and a head fitted on its features."""
    net = network(size=224)
    train = real_manifest.split("train")
    features = run(Session(to_onnx(Bundle(net)), 2, 224), ImageDataset(train, net.spec), np.arange(len(train))).features
    fitted = LogisticRegression(C=0.05, max_iter=500).fit(features, train.labels())
    head = net.module.get_submodule(net.head)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.coef_))
        head.bias.copy_(torch.from_numpy(fitted.intercept_))
    return Bundle(net)


@pytest.fixture(scope="session")
def real_service(real_manifest, real_bundle, tmp_path_factory) -> Path:
    """What is registered of it."""
    folder = tmp_path_factory.mktemp("service")
    evaluated = {"val": probabilities(real_bundle, real_manifest.split("val"))}
    write(folder, real_bundle, datasets(real_bundle, real_manifest), settings_with({}).serving, 0, evaluated)
    return folder
