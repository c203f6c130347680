"""Gathers the facts of an evaluation from the runs behind it, and logs report, model card and figures."""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr.evaluation import bootstrap, plots
from cxr.report.card import card
from cxr.report.checklist import checklist
from cxr.report.page import page
from steps.runtime.context import Context
from steps.runtime.step_key import LIBRARIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from steps.work.evaluate import Subject

_KERMANY = "CC BY 4.0 (of the published set)"
_ROOM = 4800  # characters that the registry keeps of a description


def report(context: Context, subject: "Subject", found: dict[str, Any], figures: "dict[str, Figure]") -> None:
    """Log `evaluation/`: report.html, report.json, model_card.md, figures, and last scores.json."""
    facts = {**_facts(context, subject), **found}
    facts["checklist"] = checklist(facts)
    figures = {**figures, **_more_figures(facts)}
    for name, figure in figures.items():
        context.put_figure(figure, f"evaluation/figures/{name}.png")
    context.put_text(page(facts, figures), "evaluation/report.html")
    context.put_json({k: v for k, v in facts.items() if k != "settings_text"}, "evaluation/report.json")
    text = card(facts)
    context.put_text(text, "evaluation/model_card.md")
    if "registered" in facts:
        context.client.update_model_version(**facts["registered"], description=text[:_ROOM])
    context.put_json(found["test"]["scores"], "evaluation/scores.json")
    context.log.info("report: evaluation/report.html of run %s", context.run_id)


def _more_figures(facts: dict[str, Any]) -> "dict[str, Figure]":
    drawn = {}
    if "robustness" in facts:
        drawn["robustness"] = plots.robustness(facts["robustness"])
    if facts["subgroups"]:
        drawn["subgroups"] = plots.subgroups(facts["subgroups"])
    if "test" in facts.get("champion", {}):
        drawn["differences"] = plots.differences(facts["champion"]["test"], f"champion {facts['champion']['version']}")
    return drawn


def _facts(context: Context, subject: "Subject") -> dict[str, Any]:
    """What is known before anything is scored."""
    loaded, network = subject.bundle, subject.bundle.network
    tags = context.client.get_run(context.run_id).data.tags
    names = {"prepare_split": "cxr.split_run_id", "train": "cxr.train_run_id", "finetune": "cxr.finetune_run_id"}
    runs = {name: tags[tag] for name, tag in names.items() if tag in tags} | {"evaluate": context.run_id}
    return {
        "made": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "resamples": f"{bootstrap.RESAMPLES:,}",
        "model": {
            "name": network.name,
            "classes": list(network.classes),
            "input": network.spec.to_dict(),
            "parameters": sum(p.numel() for p in network.module.parameters()),
            "members": network.members,
            "temperature": loaded.temperature,
            "operating_points": loaded.operating_points,
            "facts": loaded.facts,
            "digest": subject.digest,
        },
        "data": _data(context, subject),
        "runs": runs,
        "settings": context.settings.to_dict(),
        "settings_text": context.settings.to_yaml(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def _data(context: Context, subject: "Subject") -> dict[str, Any]:
    manifest = subject.manifest
    folder = context.fetch(subject.split_run_id, "split")
    leaks = json.loads((folder / "leaks.json").read_text(encoding="utf-8"))
    unreadable = pd.read_csv(folder / "unreadable.csv", keep_default_na=False).to_dict("records")
    decoded = context.client.get_run(subject.split_run_id).data.metrics.get("decoded")
    kept = len(manifest) + len(leaks["dropped"])
    synthetic = bool(manifest.source.get("synthetic"))
    return {
        "source": manifest.source,
        "licence": "none needed, drawn by this program" if synthetic else _licence(manifest.source),
        "digest": manifest.digest,
        "counts": manifest.counts().reset_index().to_dict("records"),
        "leaks": leaks,
        "unreadable": unreadable,
        "not_taken": int(decoded) - kept if decoded is not None else 0,
    }


def _licence(source: dict[str, Any]) -> str:
    """Only a source that we know has a licence that we know."""
    return _KERMANY if source.get("citation") else "not told by the source; that of the folder's owner"
