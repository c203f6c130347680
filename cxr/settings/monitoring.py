"""The schema of section `monitor`."""

from typing import Annotated

from pydantic import Field

from cxr.settings.section import ScoreLimits, Section

Distance = Annotated[float, Field(gt=0)]
Change = Annotated[float, Field(gt=0, lt=1)]


class MonitorLimits(Section):
    """Section `monitor.limits`: distances from the reference that fail the step; None: no limit."""

    psi: Distance | None
    ks: Change | None
    referred: Change | None
    class_share: Change | None
    scores: ScoreLimits


class MonitorSettings(Section):
    """Section `monitor`: the answers of a version in use against its reference."""

    false_alarms: Change
    window_images: Annotated[int, Field(ge=5)]
    limits: MonitorLimits
