"""Reporting checklists, filled from the facts of a run, or marked open with what is missing.

Item numbers are those of CLAIM (A. S. Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging
(CLAIM): 2024 Update", Radiology: AI 6 (2024)) and of TRIPOD+AI (G. S. Collins et al., BMJ 385 (2024), e078378); the
topics are in our words.
"""

from dataclasses import asdict, dataclass
from typing import Any

FILLED, OPEN = "filled", "open"


@dataclass(frozen=True)
class Item:
    """One item: `claim` and `tripod` are its numbers, `answer` what can be said, or what is missing where open."""

    claim: str
    tripod: str
    topic: str
    status: str
    answer: str


def checklist(facts: dict[str, Any]) -> list[dict[str, str]]:
    """Every item for these facts."""
    return [asdict(item) for item in (*_study(facts), *_data(facts), *_model(facts), *_results(facts), *_rest(facts))]


def _yes(claim: str, tripod: str, topic: str, answer: str) -> Item:
    return Item(claim, tripod, topic, FILLED, answer)


def _no(claim: str, tripod: str, topic: str, answer: str) -> Item:
    return Item(claim, tripod, topic, OPEN, answer)


def _study(facts: dict[str, Any]) -> list[Item]:
    model = facts["model"]
    return [
        _yes("1", "1", "Named as a study of artificial intelligence", f"deep learning, {model['name']}: title"),
        _no("2", "2", "Structured abstract", "a program cannot write it; the summary has its numbers"),
        _no("3", "3a, 3c", "Clinical background and intended role; known inequalities", "to be written by the authors"),
        _yes("4", "4", "Objective", f"classify chest X-rays as {', '.join(model['classes'])}"),
        _yes("5", "5a", "Prospective or retrospective", "retrospective, from a published set"),
        _yes("6", "4", "Goal of the study", "building and internally validating a model"),
    ]


def _data(facts: dict[str, Any]) -> list[Item]:
    data, split = facts["data"], facts["settings"]["data"]
    source = data["source"]
    where = source.get("citation") or source["address"]
    return [
        _yes("7", "5a", "Sources of the data", where),
        _no("8", "6a, 6b", "Who was included, where and when", "the set says: children of one to five years, one "
            "hospital; dates and criteria are not in it"),
        _yes("9", "7", "Preparation of the pictures", f"grey, {model_input(facts)}; the same in training and in use"),
        _yes("10", "7", "Which part of the data was taken", f"subset_size: {split['subset_size'] or 'all'}; "
             f"{len(data['unreadable'])} unreadable, {len(data['leaks']['dropped'])} duplicates left out"),
        _no("11", "-", "How the data were made anonymous", "done by the publishers of the set; not described in it"),
        _yes("12", "11", "Missing data", f"no label; {len(data['unreadable'])} unreadable images were left out"),
        _no("13", "6a", "How the pictures were taken", "machines, projections and protocol are not in the data"),
        _yes("14", "8a", "Reference standard", "labels of the set: folder (normal, pneumonia), name (bacteria, virus)"),
        _no("15", "8a", "Why this reference standard", "chosen by the publishers; no laboratory result is in the data"),
        _no("16", "8b", "Who labelled, with which training", "two physicians and a third for the test part, say the "
            "publishers; names and experience are not in the data"),
        _no("17", "8b", "How the test part was labelled", "as above; not in the data"),
        _no("18", "8b", "Agreement of readers", "single readings are not in the data"),
        _yes("19", "12a", "How images were assigned to parts", f"stratified by class, grouped by patient, val_size "
             f"{split['val_size']}, seed {facts['settings']['seed']}; an official test part stays one"),
        _yes("20", "12a", "Level at which parts are disjoint", "patient; "
             f"{len(data['leaks']['patients_in_two_splits'])} patients in two parts"),
        _no("21", "10", "Sample size", f"{facts['test']['images']} test images are what there is; not planned"),
    ]  # fmt: skip


def model_input(facts: dict[str, Any]) -> str:
    """The input of the network in words."""
    spec = facts["model"]["input"]
    return f"{spec['size']} x {spec['size']} pixels, {spec['interpolation']}, {spec['resize_mode']}"


def _model(facts: dict[str, Any]) -> list[Item]:
    model, settings = facts["model"], facts["settings"]
    step = settings["finetune" if model["facts"].get("step") == "finetune" else "train"]
    rates = f"{step['optimizer']['_target_']}, lr {step['optimizer'].get('lr')}, batch {step['batch_size']}"
    return [
        _yes("22", "12c", "The model", f"{model['name']}, {model['parameters']:,} parameters, a linear head"),
        _yes("23", "12c", "Software", ", ".join(f"{k} {v}" for k, v in facts["versions"].items())),
        _yes("24", "12c", "Where its weights start", f"weights: {settings['model']['weights']}"),
        _yes("25", "12c", "Training", f"{rates}, at most {step['epochs']} epochs, patience {step['patience']}, "
             f"class weights {step['class_weights']}, seed {settings['seed']}"),
        _yes("26", "12c", "How the final model was chosen", f"best {model['facts'].get('metric')} on validation, epoch "
             f"{model['facts'].get('epoch')}; temperature and thresholds on validation"),
        _yes("27", "12c", "Ensemble", "none: a single network" if not model["members"] else
             f"{model['members']} networks, their probabilities averaged"),
        _yes("-", "13", "Classes of unequal size", f"class weights {step['class_weights']} in the training loss only; "
             "macro scores; predictive values at several prevalences"),
        _no("-", "14", "Fairness", "age, sex and origin are not in the data; subgroups by file properties only"),
        _yes("-", "15", "What the model gives out", "a probability for each class, calibrated by one temperature; "
             f"thresholds {', '.join(model['operating_points']) or 'none'}"),
    ]  # fmt: skip


def _results(facts: dict[str, Any]) -> list[Item]:
    robust = facts.get("robustness")
    champion = facts.get("champion", {})
    compared = "test" in champion
    maps = facts["mistakes"]["maps"]
    test = facts["test"]
    return [
        _yes("28", "12e", "Measures of performance", "AUC, sensitivity, specificity, F1, calibration: scores"),
        _yes("29", "12e", "Uncertainty", "95 % intervals, 2,000 bootstrap resamples of patients; DeLong for AUC"),
        (_yes if robust else _no)("30", "12e", "Robustness", f"{len(robust['table']) - 1} changes of pictures" if robust
             else "left out (evaluate.robustness: false)"),
        (_yes if maps else _no)("31", "-", "Explaining answers", "class activation maps of the gravest mistakes" if maps
             else "this architecture has no exact activation map"),
        _yes("32", "12d", "Test on internal data", f"{test['images']} images of {test['patients']} patients, held out"),
        _no("33", "12d", "Test on external data", "none: another hospital's pictures are needed"),
        _no("34", "18d", "Registration of the study", "none"),
        _yes("35", "20a", "Flow of images and patients", "data, with all that was left out"),
        _no("36", "20b", "Age, sex and condition in each part", "not in this data; counts by class and part are given"),
        _yes("37", "23a", "Performance with uncertainty", "scores, each with its interval"),
        _yes("38", "23a", "Diagnostic accuracy with precision", "operating points, with predictive values"),
        _yes("39", "23b", "Where it fails", f"gallery of mistakes, {len(facts['subgroups'])} subgroups"),
        (_yes if compared else _no)("-", "24", "Comparison with another", f"champion, version {champion['version']}"
             if compared else champion.get("why_not", "there was no champion before")),
    ]  # fmt: skip


def _rest(facts: dict[str, Any]) -> list[Item]:
    return [
        _yes("40", "26", "Limits", "limits"),
        _no("41", "25, 27a-c", "What follows for practice", "for the authors; the intended use excludes diagnosis"),
        _yes("42", "18c", "Full protocol", "settings, seeds, versions and run IDs below repeat the study"),
        _yes("43", "18e, 18f", "Where software, model and data are", f"data: {facts['data']['source']['address']}; "
             f"model: the MLflow run {facts['runs'].get('evaluate', '')}"),
        _no("44", "18a, 18b", "Funding and interests", "to be told by the authors"),
        _no("-", "19", "Patients and public involved", "none were"),
    ]  # fmt: skip
