"""A heatmap shows what the network saw, in the shape of the radiograph, and says that it is for research only."""

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import SecondaryCaptureImageStorage

from cxr.archive.capture import SIDE, capture, picture
from cxr.archive.identity import RESEARCH, ResultUIDs
from cxr.archive.source import Source
from tests.cxr.archive.made import MODEL, STUDY, answer, radiograph, validated
from tests.cxr.archive.made import picture as grey


def made(**elements) -> pydicom.Dataset:
    source = Source.of(radiograph(**elements))
    return capture(source, answer(), MODEL, ResultUIDs.of(source.study, source.instance, MODEL, "argmax"))


def test_it_is_valid_and_can_be_read_back(tmp_path):
    buffer = io.BytesIO()
    made().save_as(buffer, enforce_file_format=True)
    assert validated(buffer.getvalue(), tmp_path) == []
    read = pydicom.dcmread(io.BytesIO(buffer.getvalue()))
    assert read.SOPClassUID == SecondaryCaptureImageStorage and read.StudyInstanceUID == STUDY
    shape = read.pixel_array.shape
    assert shape[2] == 3 and shape[1] == SIDE and SIDE * 120 // 160 < shape[0] < SIDE * 120 // 160 + 100
    assert read.PhotometricInterpretation == "RGB" and list(read.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]


def test_it_refers_to_the_image_that_it_was_made_from():
    source, heatmap = Source.of(radiograph()), made()
    reference = heatmap.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.instance and reference.ReferencedSOPClassUID == source.sop_class
    assert heatmap.SeriesInstanceUID != source.series and str(heatmap.PatientName) == "Müller^Jürgen"
    assert list(heatmap.PatientOrientation) == ["L", "F"]
    assert "virus" in heatmap.DerivationDescription


def test_it_names_the_class_whose_evidence_it_shows():
    """The one that the decision rests on, which need not be the likeliest of all."""
    source, sure = Source.of(radiograph()), {"probability_normal": 0.4, "probability_bacteria": 0.35}
    row = answer(label="normal", probability_virus=0.25, probability_pneumonia=0.6, decision="pneumonia", **sure)
    uids = ResultUIDs.of(source.study, source.instance, MODEL, "argmax")
    assert "map for bacteria" in capture(source, row, MODEL, uids).DerivationDescription
    negative = capture(source, row | {"decision": "normal"}, MODEL, uids)
    assert "map for normal" in negative.DerivationDescription


def test_it_says_that_it_is_for_research():
    heatmap = made()
    assert RESEARCH in heatmap.SeriesDescription and heatmap.ImageComments == RESEARCH
    assert heatmap.ContentQualification == "RESEARCH"
    pixels = heatmap.pixel_array
    strip = pixels[SIDE * 120 // 160 :]
    assert strip.max() == 255 and (strip == 0).mean() > 0.5  # white letters on black


@pytest.mark.parametrize("rows, columns", [(100, 200), (200, 100), (3000, 60), (16, 16)])
def test_the_proportions_are_those_of_the_radiograph(rows, columns):
    drawn = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    shown = picture(drawn, (rows, columns), ("a", "b"))
    inside = (shown == 90).all(2)
    height, width = inside.any(1).sum(), inside.any(0).sum()
    assert max(height, width) == SIDE and height / width == pytest.approx(rows / columns, rel=0.05)


def test_a_cropped_view_stays_square():
    source = Source.of(radiograph(pixels=grey(1, 100, 300)))
    model = MODEL.__class__(**{**MODEL.__dict__, "resize_mode": "crop"})
    heatmap = capture(source, answer(), model, ResultUIDs.of(source.study, source.instance, model, "argmax"))
    assert heatmap.Columns == SIDE and heatmap.Rows > SIDE
