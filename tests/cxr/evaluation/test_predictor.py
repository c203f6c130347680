"""Logits depend on the image alone: not on its batch, its neighbours, the thread or the cache."""

import threading

import numpy as np
import pytest
import torch

from cxr.errors import CxrError, ImageError
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.loading.disk_cache import DiskCache
from cxr.loading.rasters import CachedDataset, ImageDataset, open_rasters
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from tests.helpers import network, small_set


@pytest.fixture(scope="module")
def predictor():
    return Predictor(Bundle(network()))


@pytest.fixture
def manifest(tmp_path):
    return small_set(tmp_path)


@pytest.fixture
def dataset(manifest, predictor):
    return ImageDataset(manifest, predictor.spec)


@pytest.mark.slow
def test_batches_and_threads_do_not_change_the_logits(predictor, dataset):
    alone = np.concatenate([predictor.logits(dataset.rasters(np.array([i]))) for i in range(len(dataset))])
    np.testing.assert_allclose(predict_logits(predictor, dataset, 7), alone, atol=1e-5)
    answers = {}
    threads = [
        threading.Thread(target=lambda n=n: answers.update({n: predict_logits(predictor, dataset, 5)}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    for answer in answers.values():
        np.testing.assert_allclose(answer, alone, atol=1e-5)


def test_cached_equals_uncached(predictor, manifest, dataset, tmp_path):
    cached = open_rasters(manifest, predictor.spec, DiskCache(tmp_path / "cache", 1))
    assert isinstance(cached, CachedDataset)
    assert (predict_logits(predictor, cached, 8) == predict_logits(predictor, dataset, 8)).all()


def test_an_image_that_cannot_be_read_is_not_skipped(predictor, manifest, dataset):
    manifest.files()[3].write_bytes(b"text")
    with pytest.raises((CxrError, ImageError), match="has changed since the split was made"):
        predict_logits(predictor, dataset, 8)


def test_logits_that_are_not_finite_are_an_error(dataset):
    broken = network()
    with torch.no_grad():
        broken.module.get_submodule(broken.head).bias.fill_(float("nan"))
    with pytest.raises(CxrError, match="not finite"):
        predict_logits(Predictor(Bundle(broken)), dataset, 8)


def test_softmax_of_large_numbers():
    assert softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]
