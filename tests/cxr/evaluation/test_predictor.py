"""An answer depends on the picture alone: not on its batch, its neighbours or who asks."""

import threading

import numpy as np
import pytest
import torch

from cxr.errors import ImageError
from cxr.evaluation.predictor import Predictor
from cxr.models.bundle import Bundle
from cxr.serving.probabilities import softmax
from tests.helpers import network, small_set


@pytest.fixture(scope="module")
def predictor():
    return Predictor(Bundle(network()))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return small_set(tmp_path_factory.mktemp("set"))


def test_batches_and_threads_do_not_change_the_answer(predictor, manifest):
    readers = [file.read_bytes for file in manifest.files()]
    alone = np.concatenate([predictor.probabilities(predictor.raster(read())[None]) for read in readers])
    np.testing.assert_allclose(predictor.predict(readers, 7), alone, atol=1e-6)
    found = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: predictor.predict(readers, 5)})) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in found.values():
        np.testing.assert_allclose(answer, alone, atol=1e-6)


def test_rows_add_up_and_no_pictures_give_no_rows(predictor, manifest):
    answer = predictor.predict([manifest.files()[0].read_bytes], 8)
    assert answer.shape == (1, 3)
    assert answer.sum() == pytest.approx(1)
    assert predictor.predict([], 8).shape == (0, 3)


def test_a_bad_picture_is_not_passed_over(predictor, manifest):
    with pytest.raises(ImageError):
        predictor.predict([manifest.files()[0].read_bytes, lambda: b"text"], 8)


def test_temperature_flattens(manifest):
    made = network()
    raster = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    warm, plain = Predictor(Bundle(made, temperature=4.0)), Predictor(Bundle(made))
    np.testing.assert_allclose(warm.probabilities(raster), softmax(plain.logits(raster) / 4), atol=1e-12)
    assert not torch.is_grad_enabled() or not any(p.grad is not None for p in made.module.parameters())


def test_softmax_of_large_numbers():
    assert softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]
