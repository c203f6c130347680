"""The page of `demo` in a real browser: upload, result, rejection; and requests that it rejects."""

import base64
import re
import shutil
import signal

import pytest
import requests

from cxr.datasets import phantom
from tests.helpers import wait_for

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def page(workflow):
    """Address of a running demo, which Ctrl-C ends."""
    log = workflow.folder / "demo.log"
    with log.open("w") as out:
        settings = ("port=0", "open=false", "model_uri=models:/cxr-pneumonia/1")
        process = workflow.start("demo", *settings, stdout=out, stderr=out)
        try:
            yield wait_for(lambda: re.search(r"answers at (http://127\.0\.0\.1:\d+)", log.read_text()), 240)[1]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM or not DRIVER:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def answer(browser) -> str:
    """Text of the answer, once it is there; read in one call, since the page replaces the element."""
    script = "return document.querySelector('.verdict:not(.wait *)')?.innerText"
    return wait_for(lambda: browser.execute_script(script), 20)


def test_upload_result_and_rejection(page, browser, tmp_path):
    browser.get(page)
    assert "not a medical device" in browser.find_element("css selector", ".notice").text
    assert browser.find_element("id", "model").text == "cxr-pneumonia, version 1"
    (tmp_path / "xray.jpeg").write_bytes(phantom.example("bacteria", 9))
    browser.find_element("id", "file").send_keys(str(tmp_path / "xray.jpeg"))
    assert answer(browser).split("\n")[0] in ("Pneumonia", "Normal", "For a person to decide")
    bars = [e.text.split("\n") for e in browser.find_elements("css selector", ".bar")]
    assert [name for name, _ in bars] == ["normal", "bacteria", "virus"]
    scale = browser.find_element("css selector", ".rule svg").get_attribute("aria-label")
    assert "threshold 50.0 %" in scale and browser.find_element("css selector", ".rule h3").text.startswith("pneumonia")
    row = requests.post(f"{page}/answer", data=phantom.example("bacteria", 9), timeout=30).json()["row"]
    shown = {name: float(re.search(r"[\d.]+", text)[0]) for name, text in bars}
    for name, value in shown.items():
        assert value == pytest.approx(100 * row[f"probability_{name}"], abs=0.11)
    hot = browser.find_element("css selector", ".seen img").get_attribute("src")
    browser.find_element("id", "heat").click()
    assert browser.find_element("css selector", ".seen img").get_attribute("src") != hot

    browser.find_element("id", "sample-no-xray").click()
    wait_for(lambda: "a colour image" in answer(browser), 20)
    assert answer(browser).startswith("For a person to decide")

    (tmp_path / "text.jpeg").write_text("no picture")
    browser.find_element("id", "file").send_keys(str(tmp_path / "text.jpeg"))
    wait_for(lambda: "This file cannot be read" in answer(browser), 20)
    errors = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("status of 400" in message for message in errors)


def test_the_page_fits_the_width_of_a_phone(page, browser):
    browser.set_window_size(400, 900)
    browser.get(page)
    browser.find_element("id", "sample-virus").click()
    answer(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_the_page_serves_this_machine_only(page):
    assert requests.get(page, headers={"Host": "elsewhere.example"}, timeout=10).status_code == 400
    assert "default-src 'self'" in requests.get(page, timeout=10).headers["Content-Security-Policy"]
    text = requests.get(page, timeout=10).text.replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
    assert not re.findall(r"https?://", text)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://127.0.0.1.elsewhere.example", "null"])
def test_another_site_cannot_ask_the_model(page, origin):
    response = requests.post(f"{page}/answer", data=phantom.example("normal"), headers={"Origin": origin}, timeout=30)
    assert response.status_code == 403 and "other sites" in response.json()["message"]
    assert "probability" not in response.text


def test_unreadable_files_are_rejected(page):
    for data, status, words in (
        (b"", 400, "empty"),
        (b"no picture", 400, "neither an image"),
        (bytes(20_000_001), 413, "more than 20,000,000 bytes"),
    ):
        response = requests.post(f"{page}/answer", data=data, timeout=30)
        assert response.status_code == status and words in response.json()["message"]
    assert requests.get(f"{page}/samples/none", timeout=10).status_code == 404
    response = requests.post(f"{page}/answer?operating_point=best", data=phantom.example("normal"), timeout=30)
    assert response.status_code == 400 and "expected one of argmax" in response.json()["message"]


def test_the_answer_has_the_image_that_the_network_sees(page):
    result = requests.post(f"{page}/answer", data=phantom.example("normal"), timeout=30).json()
    assert base64.b64decode(result["picture"]).startswith(b"\x89PNG")
    assert result["row"]["model_version"] and result["row"]["heatmap"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"port": "high"}, "port: expected a number from 0 (any free port) to 65535, got 'high'"),
        ({"open": "maybe"}, "open: expected true or false, got 'maybe'"),
        ({"model_uri": "models:/none/1"}, "not in the registry"),
    ],
)
def test_invalid_parameters_are_refused(refused, given, words):
    assert words in refused("demo", **given)


def test_a_port_that_is_taken(refused, page):
    port = page.rsplit(":", 1)[1]
    assert f"port {port} is taken; give another one: -P port=0" in refused("demo", port=port, open="false")
