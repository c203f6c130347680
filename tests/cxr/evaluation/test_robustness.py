"""Unchanged images score under the changes as in the evaluation."""

from cxr.evaluation import robustness, scores
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.scores import Sample
from cxr.loading import changes
from cxr.loading.changes import CHANGES
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from tests.helpers import network, probabilities, small_set


def test_unchanged_images_score_as_in_the_evaluation(tmp_path):
    net = network()
    bundle, split = Bundle(net, temperature=1.3), small_set(tmp_path).split("test")
    predictor, dataset = Predictor(bundle), ImageDataset(split, net.spec)
    maps = ClassActivationMap.of(predictor, net)
    result = robustness.robustness(
        predictor, maps, split, dataset, temperature=bundle.temperature, seed=0, most=None, batch_size=4
    )
    evaluated = scores.estimates(Sample.of(split, 0), probabilities(bundle, split))
    first = result.table[0]
    assert first.changed == 0
    assert first.scores["macro_f1"] == evaluated["macro_f1"]
    assert result.images == len(split) and 0 <= result.inside <= 1
    assert len(result.table) == len(CHANGES)


def test_a_network_that_reads_the_border_is_found_out(tmp_path, monkeypatch):
    split = small_set(tmp_path).split("test")
    net = network()
    monkeypatch.setattr(robustness, "CHANGES", {"unchanged": changes.border_alone, "inside": lambda grey: grey})
    result = robustness.robustness(
        *(Predictor(Bundle(net)), None, split, ImageDataset(split, net.spec)),
        temperature=1.0,
        seed=0,
        most=None,
        batch_size=4,
    )
    assert result.border_alone == result.table[0].scores
    assert result.border_alone != result.table[1].scores
