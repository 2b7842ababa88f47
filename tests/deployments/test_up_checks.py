"""What `pqa up` refuses before it starts anything."""

from __future__ import annotations

import socket

import pytest

from deployments import up
from deployments.settings import ServiceSettings
from deployments.up_checks import check_up
from flows.up_options import UpOptions
from storage.errors import InputError
from tests.deployments.served import free_ports

PORTS = ("prefect_port", "mlflow_port", "dask_port", "dashboard_port")


@pytest.fixture
def given(tmp_path):
    """Options of a workspace of its own, and ports that are free."""

    def make(**options: object) -> UpOptions:
        ports = dict(zip(PORTS, free_ports(4), strict=True))
        return UpOptions(workspace=tmp_path / "w", **(ports | options))

    return make


def said_of(options: UpOptions) -> list[str]:
    with pytest.raises(InputError) as error:
        check_up(options, ServiceSettings.from_options(options))
    return list(error.value.problems)


def test_everything_that_cannot_be_used_is_in_one_message(given, tmp_path, monkeypatch):
    monkeypatch.setattr(up, "make_services", lambda *_: pytest.fail("something was started"))
    wrong = {"timezone": "Mars/Olympus", "dask": "nonsense", "watch": str(tmp_path / "inbx")}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="5 problems") as error:
            up.main(given(**wrong, data=tmp_path / "dta", mlflow_port=port))
    told = str(error.value)
    for part in ("--data", "dta: no such folder", "inbx: no such folder", "'nonsense' is no address"):
        assert part in told
    assert "--timezone Mars/Olympus: no such time zone" in told
    assert f"port {port} of 127.0.0.1 cannot be used" in told
    assert not (tmp_path / "inbx").exists()


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("timezone", "Europe/Berlim", "did you mean Europe/Berlin"),
        ("timezone", "../UTC", "no such time zone"),
        ("watch", "s4://bucket/screens", "cannot be watched"),
        ("watch", "s3:/bucket/screens", "no such folder"),
        ("dask", "mine.yaml", "no YAML file"),
    ],
)
def test_a_slip_of_the_pen_is_told(given, option, value, part):
    (problem,) = said_of(given(**{option: value}))
    assert part in problem
    assert value in problem


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timezone": "Europe/Berlin"},
        {"dask": "local"},
        {"dask": "tcp://scheduler:8786"},
        {"watch": "memory://bucket/screens"},
    ],
)
def test_what_can_be_used_is_let_through(given, options):
    made = given(**options)
    check_up(made, ServiceSettings.from_options(made))


def test_the_folder_that_is_there_may_be_watched(given, tmp_path):
    made = given(watch=str(tmp_path))
    check_up(made, ServiceSettings.from_options(made))
