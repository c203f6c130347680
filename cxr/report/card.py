"""A model card in Markdown, short enough for the registry (after M. Mitchell et al., "Model cards for model reporting",
FAT* 2019)."""

from typing import Any

from cxr.report import formatting
from cxr.report.formatting import number


def card(facts: dict[str, Any]) -> str:
    """The facts that somebody needs who finds the version in the registry."""
    model, test = facts["model"], facts["test"]
    scores = test["scores"]
    lines = [f"# {model['name']}: {' / '.join(model['classes'])}", ""]
    if facts["data"]["source"].get("synthetic"):
        lines += [f"**{formatting.SYNTHETIC}**", ""]
    lines += [formatting.INTENDED_USE, ""]
    if "gate" in facts:
        lines += [f"**Gate:** {facts['gate']['verdict']}", ""]
    lines += [
        f"## Scores on {test['images']:,} test images of {test['patients']:,} patients", "",
        "95 % intervals from a bootstrap over patients.", "", "| score | value |", "|---|---|",
        *(f"| {name} | {number(value)} |" for name, value in formatting.overall(scores)),
        *(f"| pneumonia: {name} | {number(value)} |" for name, value in formatting.pneumonia(scores)),
        "", "## Operating points (chosen on validation)", "",
        "| point | threshold | sensitivity | specificity |", "|---|---|---|---|",
    ]  # fmt: skip
    for point in test["operating_points"]:
        threshold = "–" if point["threshold"] is None else f"{point['threshold']:.3f}"
        own = point["scores"]
        lines.append(f"| {point['name']} | {threshold} | {number(own['sensitivity'])} | {number(own['specificity'])} |")
    after = test["calibration"]["after"]
    lines += ["", f"Calibration: temperature {model['temperature']:.3f}, ECE {after['ece']:.3f}, "
              f"Brier {after['brier']:.3f}.", "", "## Limits", ""]  # fmt: skip
    lines += [f"- {limit}" for limit in formatting.LIMITS]
    if "served" in facts:
        shares = {part: found["share"] for part, found in facts["served"]["referred"].items()}
        lines.append(f"- Served, it refers {shares['val']:.1%} of the validation and {shares['test']:.1%} of the test "
                     "images to a person: unlike training, undecided, or no plausible X-ray.")  # fmt: skip
    source = facts["data"]["source"]
    lines += ["", "## Where it comes from", "", f"- data: {source.get('citation') or source['address']}",
              f"- split: {facts['data']['digest'][:16]}, seed {facts['settings']['seed']}"]  # fmt: skip
    lines += [f"- {name} run: {run_id}" for name, run_id in facts["runs"].items()]
    return "\n".join(lines) + "\n"
