"""After a power failure at any moment, what was being written is whole: the old one, the new one, or written again."""

import os
from dataclasses import replace
from unittest import mock

import pytest

from bench.faults.common import Case
from bench.faults.power import play
from bench.faults.power_cases import cases

NAMES = (
    "a file that gets its name",
    "a checkpoint over an older one",
    "a bundle",
    "a bundle over an older one",
    "a manifest over an older one",
    "the key of patient pseudonyms",
    "a cached array",
    "a cached array over a damaged one",
    "an unpacked archive",
    "an unpacked archive that is removed",
    "drawn phantoms",
    "drawn phantoms that are removed",
    "predictions",
    "predictions that another model writes again",
    "results in a folder of an archive",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return {what.name: what for what in cases(tmp_path_factory.mktemp("inputs"))}


def test_every_case_is_tested(written):
    assert tuple(written) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_half_is_taken_for_whole_and_nothing_reported_as_written_is_lost(written, tmp_path, name):
    case = Case(name)
    play(written[name], tmp_path, case, seed=0, drawn=1)
    assert case.attempts > 4 and not case.failures


@pytest.mark.parametrize("name", NAMES)
def test_without_syncing_the_same_cases_fail(written, tmp_path, name):
    """The disk that is played here does lose what is not synced."""
    what, case = written[name], Case(name)

    def write(folder, recorder):
        with mock.patch.object(os, "fsync"):
            what.write(folder, recorder)

    play(replace(what, write=write), tmp_path, case, seed=0, drawn=1)
    assert case.failures
