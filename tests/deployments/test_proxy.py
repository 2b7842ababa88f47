"""A real Caddy with the login of deployments/Caddyfile before a real `pqa up`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import requests

from tests.deployments.served import LONG, ROOT, free_ports, port_words, start_up, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(LONG),
    pytest.mark.skipif(shutil.which("caddy") is None, reason="no Caddy is installed (Debian: caddy)"),
]
LOGIN = ("lab", "a password")


@dataclass
class Proxied:
    """Ports that Caddy listens on, and what `pqa up` has printed."""

    prefect: int
    mlflow: int
    said: list[str]

    def ask(self, method: str, name: str, path: str, **how) -> requests.Response:
        """As a browser does that was told that the name leads here."""
        port = getattr(self, name)
        headers = {"Host": f"{name}.lab.example.org:{port}"} | how.pop("headers", {})
        address = f"http://127.0.0.1:{port}/{path}"
        return requests.request(method, address, headers=headers, timeout=60, **how)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory) -> Iterator[Proxied]:
    folder, (*ports, prefect, mlflow) = tmp_path_factory.mktemp("proxied"), free_ports(6)
    public = [f"http://prefect.lab.example.org:{prefect}", f"http://mlflow.lab.example.org:{mlflow}"]
    words = ["--workspace", folder, "--workers", "1", *port_words(ports)]
    up = start_up(*words, "--prefect-url", public[0], "--mlflow-url", public[1])
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(up.stdout), daemon=True).start()
    hashed = subprocess.run(
        ["caddy", "hash-password", "--plaintext", LOGIN[1]], capture_output=True, text=True, check=True
    )
    told = {
        "PREFECT_PUBLIC_URL": public[0],
        "MLFLOW_PUBLIC_URL": public[1],
        "PREFECT_SERVER": f"127.0.0.1:{ports[0]}",
        "MLFLOW_SERVER": f"127.0.0.1:{ports[1]}",
        "LOGIN_USER": LOGIN[0],
        "LOGIN_HASH": hashed.stdout.strip(),
    }
    command = ["caddy", "run", "--config", ROOT / "deployments" / "Caddyfile", "--adapter", "caddyfile"]
    caddy = subprocess.Popen(
        command, env=os.environ | told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: up.poll() is not None or any("Ctrl-C" in line for line in said))
        assert up.poll() is None, "".join(said)
        assert caddy.poll() is None
        yield Proxied(prefect, mlflow, said)
        up.send_signal(signal.SIGINT)
        assert up.wait(LONG) == 0
    finally:
        for process in (caddy, up):
            process.kill()
            process.wait()


@pytest.mark.parametrize(("name", "path"), [("prefect", "api/health"), ("mlflow", "health")])
def test_only_the_login_lets_in(proxied, name, path):
    assert proxied.ask("GET", name, path).status_code == 401
    assert proxied.ask("GET", name, path, auth=("lab", "another")).status_code == 401
    assert proxied.ask("GET", name, path, auth=LOGIN).status_code == 200


def test_prefects_pages_ask_the_public_address(proxied):
    settings = proxied.ask("GET", "prefect", "ui-settings", auth=LOGIN).json()
    assert settings["api_url"] == f"http://prefect.lab.example.org:{proxied.prefect}/api"


def test_mlflows_pages_can_search_and_other_origins_cannot(proxied):
    def search(origin: str) -> int:
        path = "ajax-api/2.0/mlflow/experiments/search"
        how = {"auth": LOGIN, "json": {"max_results": 5}, "headers": {"Origin": origin}}
        return proxied.ask("POST", "mlflow", path, **how).status_code

    assert search(f"http://mlflow.lab.example.org:{proxied.mlflow}") == 200
    assert search("http://elsewhere.example.org") == 403


def test_the_public_addresses_are_the_ones_that_are_told(proxied):
    printed = "".join(proxied.said)
    assert f"http://prefect.lab.example.org:{proxied.prefect}/deployments" in printed
    assert f"http://mlflow.lab.example.org:{proxied.mlflow}/#/experiments" in printed
