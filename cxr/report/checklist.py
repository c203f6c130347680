"""Reporting checklists, filled in from a report; what a program cannot answer is left open.

Item numbers are those of CLAIM (A. S. Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging
(CLAIM): 2024 Update", Radiology: AI 6 (2024)), of TRIPOD+AI (G. S. Collins et al., BMJ 385 (2024), e078378) and of
STARD-AI (V. Sounderajah et al., Nature Medicine 31 (2025), 3283, table 2, read in a transcription that agrees with the
abstract: 40 items, 18 of them new or changed beside STARD 2015); the topics are paraphrased.
"""

from cxr.evaluation.results import ChampionComparison, ChecklistItem, EvaluationReport
from cxr.report import formatting
from cxr.report.referral_words import rule


def checklist(report: EvaluationReport) -> list[ChecklistItem]:
    """All items, answered from the other fields of `report`."""
    return [*_study(report), *_data(report), *_model(report), *_results(report), *_other(report), *_stard(report)]


def _filled(claim: str, tripod: str, stard: str, topic: str, answer: str) -> ChecklistItem:
    return ChecklistItem(claim=claim, tripod=tripod, stard=stard, topic=topic, status="filled", answer=answer)


def _open(claim: str, tripod: str, stard: str, topic: str, answer: str) -> ChecklistItem:
    return ChecklistItem(claim=claim, tripod=tripod, stard=stard, topic=topic, status="open", answer=answer)


def _study(report: EvaluationReport) -> list[ChecklistItem]:
    classes = ", ".join(report.model.classes)
    network = f"deep learning, {report.model.name}"
    published = ", on a published dataset" if formatting.is_of_kermany(report) else ""
    goal = "evaluation of a model on another split" if report.seen else "development and internal validation of a model"
    return [
        _filled("1", "1", "1", "Identified as a study of artificial intelligence", network),
        _open("2", "2", "2", "Structured abstract", "for the authors; the summary above has the numbers"),
        _open("3", "3a, 3c", "3", "Clinical background and intended role; known inequalities", "for the authors"),
        _filled("4", "4", "4", "Objective", f"classify chest X-rays as {classes}"),
        _filled("5", "5a", "5", "Prospective or retrospective", f"retrospective{published}"),
        _filled("6", "4", "-", "Goal of the study", goal),
    ]


def _data(report: EvaluationReport) -> list[ChecklistItem]:
    data, settings = report.data, report.settings
    unreadable, dropped = len(data.unreadable), len(data.leaks.dropped)
    preparation = f"grey levels, {model_input(report)}; the same in training and in use"
    selection = (
        f"subset_size: {settings.data.subset_size or 'all'}; {unreadable} unreadable, {dropped} dropped as leaks"
    )
    reference = "labels of the dataset: folder (normal, pneumonia) and file name (bacteria, virus)"
    patients = "children of one to five years at one hospital; dates and criteria are "
    readers = "two physicians, and a third for the test split, according to the publishers; names and experience are "
    deidentified = "done by the publishers of the dataset; not described there"
    rationale = "chosen by the publishers; no laboratory results"
    if not formatting.is_of_kermany(report):
        reference, patients, readers = f"labels of the source: {', '.join(report.model.classes)}", "", ""
        if data.source.labels is not None:
            reference = f"labels of the table {data.source.labels}: {', '.join(report.model.classes)}"
        deidentified = rationale = "for the owner of the images"
    unlabelled = data.source.left_out.get("no label", 0)
    missing = (
        f"{unlabelled:,} rows without a label of these classes were left out" if unlabelled else "no missing labels"
    )
    assignment = f"stratified by class, grouped by patient, {_validation(report)}, seed {settings.seed}"
    return [
        _filled("7", "5a", "11", "Sources of the data", formatting.source(report)),
        _open("8", "6a, 6b", "7, 8, 9, 10", "Who was included, where and when", f"{patients}not in the data"),
        _filled("9", "7", "14", "Preprocessing of the images", preparation),
        _filled("10", "7", "7", "Selection of the data", selection),
        _open("11", "-", "-", "De-identification", deidentified),
        _filled("12", "11", "20", "Missing data", f"{missing}; {unreadable} unreadable images were left out"),
        _acquisition(report),
        _filled("14", "8a", "16a, 16c", "Reference standard", reference),
        _open("15", "8a", "16b", "Rationale for the reference standard", rationale),
        _open("16", "8b", "12", "Readers and their qualification", f"{readers}not in the data"),
        _open("17", "8b", "12", "How the test split was labelled", "as above; not in the data"),
        _open("18", "8b", "-", "Agreement between readers", "individual readings are not in the data"),
        _filled("19", "12a", "15b", "Assignment of images to splits", f"{assignment}; an official test split is kept"),
        _level(report),
        _open("21", "10", "22", "Sample size", f"{report.test.images} test images, as available; not planned"),
    ]


def _level(report: EvaluationReport) -> ChecklistItem:
    topic = "Level at which splits are disjoint"
    if formatting.is_one_image_each(report):
        return _open("20", "12a", "15b", topic, "image: every one counts as a patient of its own")
    both = len(report.data.leaks.patients_in_two_splits)
    return _filled("20", "12a", "15b", topic, f"patient; {both} patients in two splits")


def _validation(report: EvaluationReport) -> str:
    """How the validation images were chosen."""
    data = report.settings.data
    if data.folds is None:
        return f"val_size {data.val_size}"
    return f"{data.folds} folds in turn" if report.out_of_fold else f"fold {data.fold} of {data.folds}"


def model_input(report: EvaluationReport) -> str:
    """The input of the network in a few words."""
    spec = report.model.input
    return f"{spec.size} x {spec.size} pixels, {spec.interpolation}, {spec.resize_mode}"


def _model(report: EvaluationReport) -> list[ChecklistItem]:
    model, settings = report.model, report.settings
    trained_by = model.facts.members_step if model.facts.step == "ensemble" else model.facts.step
    step = settings.finetune if trained_by == "finetune" else settings.train
    optimizer = f"{step.optimizer.target}, lr {step.optimizer.arguments.get('lr')}, batch size {step.batch_size}"
    training = f"{optimizer}, at most {step.epochs} epochs, patience {step.patience}"
    epoch = "" if model.facts.epoch is None else f", epoch {model.facts.epoch}"
    members = f"{model.members} networks, their probabilities averaged" if model.members else "none: a single network"
    if report.out_of_fold:
        members += ", one for each fold of a cross-validation"
    on = "out-of-fold answers" if report.out_of_fold else "validation"
    thresholds = ", ".join(model.operating_points) or "none"
    tuned = "temperature and thresholds" if settings.calibration.temperature == "fitted" else "thresholds"
    imbalance = f"class weights {step.class_weights}, in the training loss only; macro-averaged scores; predictive "
    imbalance += "values at several prevalences"

    def known(claim: str, tripod: str, stard: str, topic: str, answer: str) -> ChecklistItem:
        """An item that the settings answer, if they are those of the training."""
        if {"train", "finetune", "ensemble"} & report.runs.keys():
            return _filled(claim, tripod, stard, topic, answer)
        return _open(claim, tripod, stard, topic, "not known: the bundle is a folder, without the run that trained it")

    return [
        _filled("22", "12c", "15a", "Model", f"{model.name}, {model.parameters:,} parameters, a linear head"),
        _filled(
            "23", "12c", "13", "Software", ", ".join(f"{name} {version}" for name, version in report.versions.items())
        ),
        known("24", "12c", "15b", "Initial weights", f"weights: {settings.model.weights}"),
        known("25", "12c", "15b", "Training", f"{training}, class weights {step.class_weights}, seed {settings.seed}"),
        _filled(
            "26",
            "12c",
            "15b",
            "Selection of the final model",
            f"best {model.facts.metric} on validation{epoch}; {tuned} chosen on {on}",
        ),
        _filled("27", "12c", "15a", "Ensemble", members),
        known("-", "13", "-", "Class imbalance", imbalance),
        _fairness(report),
        _filled(
            "-",
            "15",
            "15c",
            "Output of the model",
            f"a probability for each class, logits divided by {model.temperature:.3g}; thresholds: {thresholds}",
        ),
    ]


def _results(report: EvaluationReport) -> list[ChecklistItem]:
    test = report.test
    held_out = f"{test.images} held-out images of {test.patients} patients"
    intervals = f"95 % intervals, {report.resamples:,} bootstrap resamples of patients; DeLong intervals for the AUC"
    failures = f"{'gallery of mistakes, ' if report.mistakes.images else ''}{len(report.subgroups)} subgroups"
    internal = _filled("32", "12c", "15b", "Test on internal data", held_out)
    if report.seen:
        internal = _open("32", "12c", "15b", "Test on internal data", report.seen.words)
    return [
        _filled(
            "28",
            "12e",
            "18",
            "Performance measures",
            "AUC, sensitivity, specificity, F1, calibration, net benefit, risk by coverage",
        ),
        _filled("29", "12e", "18", "Uncertainty", intervals),
        _robustness(report),
        _maps(report),
        internal,
        _external(report),
        _open("34", "18d", "36", "Registration of the study", "none"),
        _filled("35", "20a", "24", "Flow of images and patients", "section Data, with everything that was left out"),
        _demographics(report),
        _filled("37", "23a", "31", "Performance with uncertainty", "section Scores, with intervals"),
        _filled(
            "38", "23a", "31", "Diagnostic accuracy with precision", "section Operating points, with predictive values"
        ),
        _filled("39", "23b", "23", "Failure analysis", failures),
        _comparison(report),
    ]


def _acquisition(report: EvaluationReport) -> ChecklistItem:
    topic = "Acquisition of the images"
    known = " and ".join(name for name in ("view", "scanner") if name in formatting.known(report))
    if known:
        return _filled("13", "6a", "13, 14", topic, f"{known}: section Data; the protocol is not in the data")
    return _open("13", "6a", "13, 14", topic, "machines, projections and protocol are not in the data")


def _fairness(report: EvaluationReport) -> ChecklistItem:
    known, unknown = formatting.known(report), formatting.unknown(report)
    missing = f"{unknown} {'are' if ' and ' in unknown else 'is'} not in the data; " if unknown else ""
    if known:
        return _filled("-", "14", "23", "Fairness", f"{missing}subgroups by {', '.join(known)} and file properties")
    return _open("-", "14", "23", "Fairness", f"{missing}subgroups by file properties only")


def _demographics(report: EvaluationReport) -> ChecklistItem:
    topic = "Age, sex and condition by split"
    if {"age", "sex"} <= set(formatting.known(report)):
        return _filled("36", "20b", "25", topic, "section Data, with counts by class")
    missing = [name for name in ("age", "sex") if name not in formatting.known(report)]
    what = "" if len(missing) == 2 else f"{missing[0]} is "
    return _open("36", "20b", "25", topic, f"{what}not in the data; counts by class and split are given")


def _external(report: EvaluationReport) -> ChecklistItem:
    topic, done = "Test on external data", report.external
    if done is None:
        return _open(
            "33", "16", "15b, 29", topic, "none; needs images from another hospital (mlflow run . -e validate)"
        )
    what = f"{done.data}: {done.images:,} images of {done.patients:,} patients, AUC {formatting.number(done.auc)}"
    if done.other_version is not None:  # other weights, and perhaps other classes or another finding
        return _open("33", "16", "15b, 29", topic, f"none of this model; of version {done.other_version} on {what}")
    return _filled("33", "16", "15b, 29", topic, f"{what}; differences from the training data in run {done.run_id}")


def _robustness(report: EvaluationReport) -> ChecklistItem:
    if report.robustness is None:
        return _open("30", "12e", "21", "Robustness", "left out (evaluate.robustness: false)")
    tests = f"{len(report.robustness.table) - 1} changes of the images, {len(report.robustness.shortcuts)} shortcuts"
    return _filled("30", "12e", "21", "Robustness", f"scores under {tests}")


def _maps(report: EvaluationReport) -> ChecklistItem:
    checked = "; compared with those of random weights" if report.map_sanity is not None else ""
    if not report.mistakes.maps:
        return _open("31", "-", "-", "Explainability", "the model has no exact class activation maps")
    of = " of the most confident mistakes" if report.mistakes.images else ""
    return _filled("31", "-", "-", "Explainability", f"class activation maps{of}{checked}")


def _comparison(report: EvaluationReport) -> ChecklistItem:
    topic = "Comparison with another model"
    if report.champion is None:
        none_before = report.gate is not None and "there was none before" in report.gate.verdict
        return _open("-", "12e", "-", topic, "there was no champion before" if none_before else "none in this run")
    if isinstance(report.champion, ChampionComparison):
        return _filled("-", "12e", "-", topic, f"champion, version {report.champion.version}")
    return _open("-", "12e", "-", topic, report.champion.why_not)


def _other(report: EvaluationReport) -> list[ChecklistItem]:
    availability = f"data: {report.data.source.address}; model: MLflow run {report.runs.get('evaluate', '')}"
    return [
        _filled("40", "26", "33", "Limitations", "section Intended use and limits"),
        _open(
            "41",
            "25, 27a, 27c",
            "34",
            "Implications for practice",
            "for the authors; the intended use excludes diagnosis",
        ),
        _filled(
            "42", "18c", "37", "Full protocol", "the settings, seed, versions and run IDs above reproduce the study"
        ),
        _filled("43", "18e, 18f", "40a", "Availability of data, code and model", availability),
        _open("44", "18a, 18b", "38, 39", "Funding and conflicts of interest", "for the authors"),
        _open("-", "19", "-", "Patient and public involvement", "none"),
    ]


def _stard(report: EvaluationReport) -> list[ChecklistItem]:
    """Items beyond those of CLAIM."""
    answers = f"MLflow run {report.runs.get('evaluate', '')}, predictions.json: the answer to every test image"
    referred = f"every test image is scored. {rule(report)} Costs and savings: section Referrals"
    prevalence = "no ward's: see section Intended use and limits; predictive values at several prevalences"
    return [
        _open("-", "17", "6", "Approval by an ethics committee", "for the authors; not described in the data"),
        _open(
            "-",
            "3b, 27b",
            "15d",
            "User of the model and expertise needed",
            "for the authors; the intended use is research",
        ),
        _filled("-", "-", "17a", "What the model knew beside the image", "nothing"),
        _open(
            "-",
            "8c",
            "17b",
            "What the readers knew beside the image",
            "no answer of this model; more is not in the data",
        ),
        _filled("-", "-", "19", "Indeterminate results", referred),
        _open("-", "-", "26a", "Severity of disease", "not in the data"),
        _open("-", "-", "26b", "Other diagnoses of images without the finding", "not in the data"),
        _filled("-", "-", "27", "Time between model and reference standard", "none: both are of the same image"),
        _filled("-", "-", "28", "Whether the data represent the place of use", prevalence),
        _filled("-", "-", "30", "Answers by reference standard", "confusion matrix in section Scores"),
        _filled("-", "-", "32", "Adverse events", "none: the images had been taken before"),
        _open("-", "-", "35", "Ethical considerations and fairness", "for the authors"),
        _filled("-", "-", "40b", "Stored answers for audit", answers),
    ]
