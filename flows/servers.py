"""Whether the servers that a job is told to use are there, before anything is computed."""

from __future__ import annotations

import os

import requests

from storage.errors import InputError

SECONDS = 10.0


def check_servers(mlflow: str | None) -> None:
    """Ask MLflow's server, and Prefect's where the environment names one.

    Raises
    ------
    InputError
        Naming all that do not answer.
    """
    prefect = os.environ.get("PREFECT_API_URL")
    asked = {"--mlflow": mlflow, "PREFECT_API_URL": prefect}
    problems = [
        f"{name}: nothing answers at {address} ({type(error).__name__})"
        for name, address in asked.items()
        if address and address.startswith(("http://", "https://")) and (error := _silence(address))
    ]
    if problems:
        raise InputError("servers", problems)


def _silence(address: str) -> Exception | None:
    """Why nothing answers; whatever is answered, also that a login is needed, is an answer."""
    try:
        requests.get(f"{address.rstrip('/')}/health", timeout=SECONDS)
    except requests.RequestException as error:
        return error
    return None
