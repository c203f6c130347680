"""The results of a monitoring as types, and their schema."""

import json
from pathlib import Path

from cxr.monitoring import results
from cxr.monitoring.results import Judged

ROOT = Path(__file__).resolve().parents[3]


def test_the_stored_schema_is_that_of_the_types():
    stored = json.loads((ROOT / "docs/monitoring.schema.json").read_text())
    assert stored == results.MonitoringReport.json_schema(), (
        "run: python -m cxr.monitoring.results > docs/monitoring.schema.json"
    )


def test_an_alarm_is_beyond_its_limit_and_beyond_chance():
    assert Judged(value=0.3, limit=0.2, chance=0.1).alarm
    assert not Judged(value=0.3, limit=0.2, chance=0.4).alarm  # few images
    assert not Judged(value=0.15, limit=0.2, chance=0.1).alarm  # many images, a small change
    assert not Judged(value=9.0, limit=None, chance=0.1).alarm
