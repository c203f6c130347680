"""A model card in Markdown, short enough for the registry.

After M. Mitchell et al., "Model cards for model reporting" (FAT* 2019).
"""

from cxr.evaluation.results import EvaluationReport
from cxr.report import formatting
from cxr.report.formatting import number
from cxr.report.referral_words import band_of, rule


def card(report: EvaluationReport) -> str:
    """The model card: intended use, scores, operating points, limits and origin."""
    model, test = report.model, report.test
    lines = [f"# {model.name}: {' / '.join(model.classes)}", ""]
    if report.data.source.synthetic:
        lines += [f"**{formatting.SYNTHETIC}**", ""]
    if report.seen is not None:
        lines += [f"**The model is of another split:** {report.seen.words}.", ""]
    lines += [formatting.intended_use(report), ""]
    if report.gate is not None:
        lines += [f"**Gate:** {report.gate.verdict}", ""]
    lines += [f"## Scores on {test.images:,} test images of {test.patients:,} patients", ""]
    lines += [
        "95 % intervals from a bootstrap over patients, at least as wide as exact ones near 0 and 1.",
        "",
        "| score | value |",
        "|---|---|",
    ]
    lines += [f"| {name} | {number(score)} |" for name, score in formatting.overall(test.scores)]
    finding = model.finding
    lines += [f"| {finding}: {name} | {number(score)} |" for name, score in formatting.of_finding(test.scores, finding)]
    if formatting.readers(report):
        lines += ["", formatting.readers(report)]
    lines += ["", "## Operating points (chosen on validation)", ""]
    if report.out_of_fold:
        lines += [formatting.OUT_OF_FOLD, ""]
    lines += [rule(report), "", "| point | threshold | refers | sensitivity | specificity |", "|---|---|---|---|---|"]
    bands = report.bands.points if report.bands is not None else {}
    for point in test.operating_points:
        sensitivity, specificity = number(point.scores["sensitivity"]), number(point.scores["specificity"])
        band = band_of(bands[point.name]) if point.name in bands else "–"
        lines.append(f"| {point.name} | {point.threshold:.3f} | {band} | {sensitivity} | {specificity} |")
    errors = test.calibration.after
    slope = number(test.calibration.finding.slope)
    calibration = f"temperature {model.temperature:.3f}, ECE {number(errors.ece)}, Brier {number(errors.brier)}"
    lines += ["", f"Calibration: {calibration}, slope {slope}."]
    if model.views > 1:
        lines += ["", f"Every answer is the mean of {model.views} views of the image."]
    lines += ["", "## Limits", ""]
    lines += [f"- {limit}" for limit in formatting.limits(report)]
    if report.served is not None:
        validation, tested = report.served.referred["val"].share, report.served.referred["test"].share
        lines.append(
            f"- At `{report.served.operating_point}`, the served model refers {validation:.1%} of the validation "
            f"images and {tested:.1%} of the test images to a person: undecided, unlike the training images, or not a "
            "plausible X-ray."
        )
    lines += ["", "## Origin", "", f"- data: {formatting.source(report)}"]
    lines += [f"- split: {report.data.digest[:16]}, seed {report.settings.seed}"]
    lines += [f"- {name} run: {run_id}" for name, run_id in report.runs.items()]
    return "\n".join(lines) + "\n"
