"""The heatmap of an answer as a Secondary Capture: the evidence for the decision, drawn over the image.

The picture is what the network saw, stretched back to the proportions of the radiograph, above a strip that says what
it is and that it is for research only: many viewers show no series description beside a picture.
"""

import base64
import binascii
import io
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import CodedConcept
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from cxr.archive import codes
from cxr.archive.identity import RESEARCH, Model, ResultUIDs
from cxr.archive.report import adopt, equipment
from cxr.archive.source import Source
from cxr.serving import decision

SERIES_NUMBER = 9902
SIDE = 768  # pixels; longer side of the picture
_TITLE = f"AI heatmap. {RESEARCH}"
_STRIP, _MARGIN, _FONT = 56, 8, 17  # pixels
_DIRECTIONS = {"A", "P", "R", "L", "H", "F"}


def capture(source: Source, answer: dict[str, Any], model: Model, uids: ResultUIDs) -> SCImage:
    """The heatmap of an answer with `heatmap`, a PNG in base64 (see `cxr.serving.service.columns`)."""
    label = codes.meaning(_explained(answer, model))
    drawn = _overlay(str(answer["heatmap"]))
    shape = (source.rows, source.columns) if model.resize_mode == "squash" else drawn.size[::-1]
    lines = (RESEARCH, codes.meaning(f"{model.name} version {model.version}: evidence for {label}"))
    result = SCImage(
        pixel_array=picture(drawn, shape, lines),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced below: that of many radiographs is unknown, which highdicom refuses
        study_instance_uid=source.study,
        series_instance_uid=uids.heatmap_series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids.heatmap,
        instance_number=source.number,
        **equipment(model),
        series_description=_TITLE,
        content_qualification="RESEARCH",
    )
    known = len(source.orientation) == 2 and all(set(way) <= _DIRECTIONS for way in source.orientation)
    result.PatientOrientation = list(source.orientation) if known else []
    result.BodyPartExamined = "CHEST"
    result.SourceImageSequence = [_reference(source)]
    result.DerivationDescription = f"Class activation map for {label}, drawn over the image as the network sees it"
    result.ImageComments = RESEARCH
    # What is burned in or lost in the source is so here as well.
    for element in source.image:
        result[element.tag] = element
    adopt(result, source)
    return result


def picture(drawn: Image.Image, shape: tuple[int, int], lines: tuple[str, ...]) -> np.ndarray:
    """The overlay with the proportions of `shape` (rows, columns), above a strip of text; `uint8` RGB (H, W, 3)."""
    rows, columns = shape
    scale = SIDE / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    canvas = Image.new("RGB", (max(SIDE // 2, size[0]), size[1] + _STRIP))
    canvas.paste(drawn.resize(size, Image.Resampling.BICUBIC), ((canvas.width - size[0]) // 2, 0))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT)
    for number, line in enumerate(lines):
        place = (_MARGIN, size[1] + _MARGIN + number * (_STRIP - 2 * _MARGIN) // len(lines))
        pen.text(place, line, fill="white", font=font)
    return np.asarray(canvas)


def _explained(answer: dict[str, Any], model: Model) -> str:
    """Name of the class that the heatmap of a decided answer shows evidence for."""
    probabilities = np.array([answer[f"probability_{name}"] for name in model.classes], dtype=np.float64)
    return model.classes[decision.explained_class(probabilities, answer["decision"] == model.finding)]


def _overlay(heatmap: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(base64.b64decode(heatmap, validate=True)), formats=("PNG",)).convert("RGB")
    except (binascii.Error, OSError) as error:
        raise ValueError("not a PNG in base64") from error


def _reference(source: Source) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.sop_class, source.instance
    purpose: CodedConcept = codes.SOURCE_IMAGE
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item
