"""Of several processes, one at a time is alone; a folder that cannot be written needs no lock."""

import os
import threading

from cxr.common import locks
from cxr.common.locks import alone
from tests.helpers import wait_for


def test_the_second_waits_for_the_first_and_says_so(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(locks, "_SILENT_S", 0.1)
    order = []

    def second():
        with alone(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with alone(tmp_path / "lock"):
        thread.start()
        wait_for(lambda: "waiting for another process to finish" in caplog.text)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_folder_that_cannot_be_written_is_used_without_a_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with alone(tmp_path / "lock"):
        assert not list(tmp_path.iterdir())
