"""What code says on a worker in another process is in the log of the run that asked for it."""

from __future__ import annotations

import logging
import time
import warnings

from distributed import Client, LocalCluster

from flows.worker_logs import logged_here
from tests.waiting import LONG


def speak() -> None:
    logging.getLogger("tasks.predictors.gat").info("epoch %d of %d", 3, 20)
    logging.getLogger("another.library").warning("nobody asked")
    warnings.warn("counts look odd", stacklevel=1)


def test_lines_and_warnings_of_workers_arrive_once_for_each_run(monkeypatch, caplog):
    monkeypatch.setattr("prefect.logging.get_run_logger", lambda: logging.getLogger("a run"))
    caplog.set_level(logging.INFO, "a run")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        # A run before has listened too, and its end must not silence this one.
        with Client(cluster, set_as_default=False) as first, logged_here(first):
            pass
        with Client(cluster, set_as_default=False) as client, logged_here(client):
            client.submit(speak).result()
            deadline = time.monotonic() + LONG
            while len(_lines(caplog)) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
    lines = _lines(caplog)
    assert len(lines) == 2
    assert lines[0].startswith("epoch 3 of 20 (Dask worker tcp://")
    assert "counts look odd" in lines[1]


def test_a_worker_in_this_process_says_a_line_once(monkeypatch, caplog):
    monkeypatch.setattr("prefect.logging.get_run_logger", lambda: logging.getLogger("a run"))
    caplog.set_level(logging.INFO)
    here = {"processes": False, "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, **here) as cluster,
        Client(cluster, set_as_default=False) as client,
        logged_here(client),
    ):
        client.submit(speak).result()
        deadline = time.monotonic() + LONG
        while not _lines(caplog) and time.monotonic() < deadline:
            time.sleep(0.05)
    said = [record.getMessage() for record in caplog.records if "epoch 3 of 20" in record.getMessage()]
    assert len(said) == 1
    assert logging.getLogger("tasks").propagate


def test_without_a_run_nothing_is_listened_to():
    with logged_here(client=None):
        pass


def _lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "a run"]
