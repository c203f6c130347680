"""The answer for one image as a Structured Report: Measurement Report (DICOM PS3.16, TID 1500).

Stored as Comprehensive 3D SR, which the IHE profile AI Results (AIR) asks of results of algorithms.

An answer has the finding (present or absent), the calibrated probabilities in percent, the most likely class, and the
operating point. A referral has the reasons, and neither probabilities nor a class: numbers of an answer that is not
given would be read as one.
"""

from typing import Any

from highdicom import sr
from highdicom.sr import CodedConcept
from pydicom import Dataset

from cxr.archive import codes
from cxr.archive.identity import MAKER, RESEARCH, Model, ResultUIDs
from cxr.archive.source import REQUIRED, Source

SERIES_NUMBER = 9901  # beyond those of modalities, so that results come last in a list of series
_TITLE = f"AI report. {RESEARCH}"
_REFER = "refer"
_DIGITS = 2  # of a probability in percent
_TEXT_LENGTH = 1000


def report(source: Source, answer: dict[str, Any], model: Model, uids: ResultUIDs) -> sr.Comprehensive3DSR:
    """The report of an answer.

    Args:
        source: header of the image.
        answer: a row with `status` "ok" or "refer" (see `cxr.serving.service.columns`).
        model: who answered.
        uids: identifiers of the results.
    """
    evidence = _evidence(source)
    document = sr.Comprehensive3DSR(
        evidence=[evidence],
        content=_content(evidence, answer, model, uids),
        series_instance_uid=uids.report_series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.report,
        instance_number=source.number,
        **equipment(model),
        series_description=_TITLE,
        content_qualification="RESEARCH",
        coding_schemes=[codes.scheme()],
        is_complete=True,
        is_final=False,
        is_verified=False,
        specific_character_set=None,
    )
    adopt(document, source)
    return document


def equipment(model: Model) -> dict[str, Any]:
    """The model as what makes a result, in the words of highdicom."""
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": codes.meaning(model.name),
        "device_serial_number": model.digest[:16],
        "software_versions": codes.meaning(model.version),
    }


def adopt(result: Dataset, source: Source) -> None:
    """Write patient and study of the source into a result, as they are.

    Not by way of highdicom, which refuses names and character sets that exist.
    """
    for element in source.identity:
        result[element.tag] = element
    if source.charset:
        result.SpecificCharacterSet = source.charset


def _evidence(source: Source) -> Dataset:
    """The source image as highdicom wants it to be described: with all that is required, and no patient."""
    evidence = Dataset()
    evidence.StudyInstanceUID, evidence.SeriesInstanceUID = source.study, source.series
    evidence.SOPInstanceUID, evidence.SOPClassUID = source.instance, source.sop_class
    evidence.Modality, evidence.Rows, evidence.Columns = source.modality, source.rows, source.columns
    for name in REQUIRED:
        setattr(evidence, name, "")
    return evidence


def _content(evidence: Dataset, answer: dict[str, Any], model: Model, uids: ResultUIDs) -> sr.MeasurementReport:
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=model.device_uid,
        name=codes.meaning(f"{model.name} version {model.version}"),
        manufacturer_name=MAKER,
        model_name=codes.meaning(model.name),
        serial_number=model.digest[:16],
    )
    observer = sr.ObserverContext(codes.DEVICE, device)
    group = _group(evidence, answer, model, uids)
    content = sr.MeasurementReport(sr.ObservationContext(observer_device_context=observer), codes.CHEST_XRAY, [group])
    root = content[0].ContentSequence
    root.insert(len(root) - 1, _text(codes.COMMENT, RESEARCH))  # above the measurements
    # Otherwise viewers print the items as running text, without the names of the values.
    for container in (content[0], root[-1], root[-1].ContentSequence[0]):
        container.ContinuityOfContent = "SEPARATE"
    return content


def _group(
    evidence: Dataset, answer: dict[str, Any], model: Model, uids: ResultUIDs
) -> sr.MeasurementsAndQualitativeEvaluations:
    point, referred = str(answer["operating_point"]), answer["status"] == _REFER
    finding = codes.of_class(model.finding)
    evaluations = [sr.QualitativeEvaluation(finding, _presence(answer, model))]
    if not referred:
        evaluations.append(sr.QualitativeEvaluation(codes.LABEL, codes.of_class(str(answer["label"]))))
    evaluations.append(sr.QualitativeEvaluation(codes.STATUS, codes.REFERRED if referred else codes.ANSWERED))
    names = [model.finding, *(name for name in model.classes if name != model.finding)]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uids.tracking, identifier="Whole image"),
        algorithm_id=sr.AlgorithmIdentification(
            name=codes.meaning(model.name), version=codes.meaning(model.version), manufacturer=MAKER
        ),
        finding_sites=[sr.FindingSite(codes.CHEST)],
        measurements=[] if referred else [_probability(name, answer[f"probability_{name}"]) for name in names],
        qualitative_evaluations=evaluations,
        source_images=[sr.SourceImageForMeasurementGroup.from_source_image(evidence)],
    )
    content = group[0].ContentSequence
    content.append(_text(codes.OPERATING_POINT, describe(point, model)))
    if referred:
        for reason in str(answer["reasons"]).split("; "):
            content.append(_text(codes.REASON, reason))
    return group


def _presence(answer: dict[str, Any], model: Model) -> CodedConcept:
    if answer["status"] == _REFER:
        return codes.UNDETERMINED
    return codes.PRESENT if answer["decision"] == model.finding else codes.ABSENT


def _probability(name: str, value: float) -> sr.Measurement:
    measurement = sr.Measurement(codes.probability_of(name), round(100 * float(value), _DIGITS), codes.PERCENT)
    of = sr.CodeContentItem(codes.FINDING, codes.of_class(name), sr.RelationshipTypeValues.HAS_CONCEPT_MOD)
    measurement[0].ContentSequence = sr.ContentSequence([of])
    return measurement


def describe(point: str, model: Model) -> str:
    """An operating point in words."""
    low, high = model.bands[point]
    threshold = model.thresholds[point]
    return (
        f"{point}: {model.finding} from a probability of {100 * threshold:.4g} %, "
        f"referred to a person from {100 * low:.4g} to {100 * high:.4g} %"
    )


def _text(name: CodedConcept, value: str) -> sr.TextContentItem:
    plain = value.encode("ascii", "replace").decode()[:_TEXT_LENGTH]
    return sr.TextContentItem(name, plain, sr.RelationshipTypeValues.CONTAINS)
