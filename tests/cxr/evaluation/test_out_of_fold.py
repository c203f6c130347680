"""Out-of-fold answers come from the member that has not seen the image, and belong to their bundle."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation import out_of_fold
from cxr.evaluation.predictor import Predictor, predict_logits
from cxr.loading.rasters import ImageDataset
from cxr.models.bundle import Bundle
from cxr.models.ensemble import combine
from tests.helpers import network, small_set

FOLDS = 3


def folds_of(folder) -> list[Manifest]:
    """A small set as three folds: of the images outside the test split, every third is a validation image."""
    whole = small_set(folder)
    outside = whole.rows.index[whole.rows["split"] != "test"]
    made = []
    for number in range(FOLDS):
        rows = whole.rows.copy()
        rows.loc[outside, "split"] = "train"
        rows.loc[outside[number::FOLDS], "split"] = "val"
        made.append(replace(whole, rows=rows))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folds = folds_of(tmp_path_factory.mktemp("images"))
    members = [Bundle(network("shufflenet_v2_x0_5", seed=n), 0.5 + n) for n in range(FOLDS)]
    return folds, members, out_of_fold.answer(members, folds, ImageDataset, "cpu")


def test_each_image_is_answered_by_the_member_that_has_not_seen_it(made):
    folds, members, answers = made
    whole = folds[0].cross_validated()
    paths = whole.split("val").rows["path"].to_numpy()
    for number, (member, fold) in enumerate(zip(members, folds, strict=True)):
        mine = answers.member == number
        assert set(paths[mine]) == set(fold.split("val").rows["path"])
        assert not set(paths[mine]) & set(fold.split("train").rows["path"])
        logits = predict_logits(Predictor(member), ImageDataset(fold.split("val"), member.network.spec), 8)
        np.testing.assert_allclose(answers.logits[mine], logits / member.temperature, atol=1e-6)
    assert answers.first_fold(whole).digest == folds[0].digest


def saved(made, folder) -> Bundle:
    folds, members, answers = made
    bundle, whole = combine(members), folds[0].cross_validated()
    digest = answers.save(folder, whole)
    bundle.facts = {"folds": FOLDS, "manifest_digest": whole.digest, "out_of_fold_sha256": digest}
    return bundle


def test_answers_are_read_as_they_were_saved_with_the_split_of_any_fold(made, tmp_path):
    bundle = saved(made, tmp_path)
    for fold in made[0]:
        loaded = out_of_fold.load(tmp_path, bundle, fold)
        np.testing.assert_array_equal(loaded.logits, made[2].logits)
        np.testing.assert_array_equal(loaded.member, made[2].member)


def test_other_bundles_and_other_images_have_none(made, tmp_path):
    bundle, fold = saved(made, tmp_path), made[0][0]
    assert out_of_fold.load(tmp_path, made[1][0], fold) is None
    assert out_of_fold.load(tmp_path, bundle, replace(fold, rows=fold.rows.iloc[1:])) is None


def test_answers_that_were_changed_or_are_gone_are_refused(made, tmp_path):
    bundle, file = saved(made, tmp_path), tmp_path / out_of_fold.FILE
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n")
    with pytest.raises(CxrError, match=r"out_of_fold\.csv is missing or was changed"):
        out_of_fold.load(tmp_path, bundle, made[0][0])
    with pytest.raises(CxrError, match="answers to other images"):
        out_of_fold.read(file, made[0][0].cross_validated())
    file.unlink()
    with pytest.raises(CxrError, match="is missing or was changed"):
        out_of_fold.load(tmp_path, bundle, made[0][0])
