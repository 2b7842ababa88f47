"""Prefect's server as `pqa up` starts it: what outlives its restart, and which address its pages ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psutil
import pytest
import requests
from prefect.client.orchestration import SyncPrefectClient

from deployments.entries import GPU_LIMIT
from deployments.server_state import release_leases, reset_gpu_limit
from deployments.services import make_services
from deployments.settings import ServiceSettings
from deployments.supervisor import Supervisor
from flows.up_options import UpOptions
from tests.deployments.served import LONG, free_ports, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(LONG)]


class PrefectService:
    """Prefect's server alone, under a supervisor."""

    def __init__(self, settings: ServiceSettings, options: UpOptions):
        self.settings, self.messages = settings, []
        (service,) = (one for one in make_services(options, settings) if one.name == "prefect")
        self.supervisor = Supervisor([service], self.messages.append)
        self.leases = settings.workspace / "prefect" / "concurrency_leases"
        self.client = SyncPrefectClient(f"{settings.prefect}/api")

    def kill(self) -> None:
        """Kill the server, and wait until the supervisor has restarted it."""
        wrapper = psutil.Process(self.supervisor._managed["prefect"].process.pid)
        for process in wrapper.children():
            process.kill()
        wait_for(lambda: "prefect is running again" in self.messages)
        self.messages.clear()

    def take_slot(self) -> str:
        """Take the GPU's slot as a run does; the lease's id."""
        how = {"slots": 1, "mode": "concurrency", "lease_duration": 300}
        return self.client.increment_concurrency_slots_with_lease(names=[GPU_LIMIT], **how).json()["lease_id"]

    def taken(self) -> int:
        """Slots taken of the GPU's limit."""
        return self.client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots


@pytest.fixture(scope="module")
def prefect(tmp_path_factory) -> Iterator[PrefectService]:
    with pytest.MonkeyPatch.context() as patch:
        # An address set for another server must not reach the pages of this one.
        patch.setenv("PREFECT_UI_API_URL", "http://elsewhere.example.org/api")
        options = UpOptions(workspace=tmp_path_factory.mktemp("workspace"), prefect_port=free_ports(1)[0])
        made = PrefectService(ServiceSettings.from_options(options), options)
        watching = threading.Thread(target=made.supervisor.watch)
        try:
            made.supervisor.start()
            watching.start()
            reset_gpu_limit(made.client)
            yield made
        finally:
            made.supervisor.stop_requested.set()
            if watching.is_alive():
                watching.join()
            made.supervisor.stop()


def test_the_pages_ask_the_port_that_was_given(prefect):
    settings = requests.get(f"{prefect.settings.prefect}/ui-settings", timeout=60).json()
    assert settings["api_url"] == f"{prefect.settings.prefect}/api"


def test_a_slot_of_the_gpu_outlives_a_restart_of_the_server_and_is_given_back_by_its_run(prefect):
    lease = prefect.take_slot()
    prefect.kill()
    assert prefect.taken() == 1
    # Refused, this would end the run that holds the slot.
    prefect.client.renew_concurrency_lease(lease, lease_duration=300)
    prefect.client.release_concurrency_slots_with_lease(lease)
    assert prefect.taken() == 0


def test_a_slot_of_a_run_that_is_gone_is_freed_once(prefect):
    gone = prefect.take_slot()
    release_leases(prefect.client, prefect.leases)
    reset_gpu_limit(prefect.client)
    assert prefect.taken() == 0
    # The next run's slot is its own: nothing of the earlier lease is left that could free it later.
    prefect.take_slot()
    prefect.client.release_concurrency_slots_with_lease(gone)
    assert prefect.taken() == 1
