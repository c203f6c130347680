"""Results are immutable and finite, and the schema in `docs/` is that of the types."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from cxr.evaluation import results, validation_results
from cxr.evaluation.results import Estimate

ROOT = Path(__file__).resolve().parents[3]


def test_the_schema_in_the_repository_is_that_of_the_types():
    stored = json.loads((ROOT / "docs/report.schema.json").read_text())
    assert stored == results.EvaluationReport.json_schema(), (
        "run: python -m cxr.evaluation.results > docs/report.schema.json"
    )


def test_the_schema_of_a_validation_in_the_repository_is_that_of_the_types():
    stored = json.loads((ROOT / "docs/validation.schema.json").read_text())
    command = "python -m cxr.evaluation.validation_results > docs/validation.schema.json"
    assert stored == validation_results.ValidationReport.json_schema(), f"run: {command}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks_are_refused(value):
    with pytest.raises(ValidationError, match="finite number"):
        Estimate(value=value)


def test_results_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Estimate(value=1.0).value = 2.0


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="Extra inputs"):
        Estimate(value=1.0, median=1.0)
