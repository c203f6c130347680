"""What the served model takes, however MLflow hands it over, and what it refuses in one line."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from cxr import bundle
from cxr.bundle import Bundle
from cxr.served import ServedModel, picture_bytes
from tests.helpers import network


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    bundle.save(Bundle(network()), folder)
    served = ServedModel()
    served.load_context(SimpleNamespace(artifacts={"bundle": str(folder)}))
    return served


@pytest.fixture(scope="module")
def picture() -> bytes:
    buffer = io.BytesIO()
    grey = np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8)
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def test_bytes_and_base64_give_the_same_answer(model, picture):
    text = base64.b64encode(picture)
    wrapped = base64.encodebytes(picture).decode()
    answer = model.predict(None, pd.DataFrame({"image": [picture, text, text.decode(), wrapped, bytearray(picture)]}))
    assert np.ptp(answer.drop(columns="label").to_numpy(), axis=0).max() < 1e-6
    assert list(answer) == [
        "label", "probability_normal", "probability_bacteria", "probability_virus", "probability_pneumonia",
    ]  # fmt: skip
    row = answer.iloc[0]
    assert row["probability_pneumonia"] == pytest.approx(row["probability_bacteria"] + row["probability_virus"])


def test_rows_keep_their_order(model, picture):
    white = io.BytesIO()
    Image.new("L", (60, 50), 255).save(white, "PNG")
    both = model.predict(None, pd.DataFrame({"image": [picture, white.getvalue()] * 40}))
    assert both["probability_normal"].round(5).nunique() == 2
    # Batches of different size may round differently in the last bits.
    alone = model.predict(None, pd.DataFrame({"image": [white.getvalue()]}))
    assert both["probability_normal"][1] == pytest.approx(alone["probability_normal"][0], abs=1e-6)


def test_no_rows_give_no_rows(model):
    assert len(model.predict(None, pd.DataFrame({"image": []}))) == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"", "empty"),
        ("", "empty"),
        (None, "no picture; send its bytes in base64"),
        (3.5, "a float is no picture"),
        ("not base64!", "neither a picture nor standard base64"),
        (base64.b64encode(b"some text").decode(), "not a picture in a known format"),
        (b"\xff\xd8\xff\xe0half a jpeg", "not a picture|header cannot be read"),
    ],
)
def test_bad_pictures_name_their_row_in_one_line(model, picture, value, words):
    with pytest.raises(MlflowException, match=words) as caught:
        model.predict(None, pd.DataFrame({"image": [picture, value]}))
    assert caught.value.message.startswith("row 1: ")
    assert "\n" not in caught.value.message
    assert caught.value.get_http_status_code() == 400


def test_a_table_without_pictures(model):
    with pytest.raises(MlflowException, match="a column 'image' with pictures is needed; seen: img"):
        model.predict(None, pd.DataFrame({"img": [b""]}))


def test_bytes_of_a_picture_are_never_taken_for_base64(picture):
    assert picture_bytes(picture) == picture
