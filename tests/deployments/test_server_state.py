"""State beside the deployments, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.catalog import Catalog
from deployments.entries import GPU_LIMIT
from deployments.factory import make_deployments
from deployments.server_state import existing_deployments, reset_gpu_limit
from deployments.settings import ServiceSettings
from flows.up_options import UpOptions
from tests.flows.conftest import prefect_api  # noqa: F401


@pytest.fixture
def client(prefect_api) -> Iterator[SyncPrefectClient]:  # noqa: F811
    with temporary_settings({PREFECT_API_URL: prefect_api}), SyncPrefectClient(prefect_api) as made:
        yield made


def test_a_place_on_the_gpu_that_nobody_has_any_more_is_given_back(client):
    reset_gpu_limit(client)
    (taken,) = client.increment_concurrency_slots(names=[GPU_LIMIT], slots=1, mode="concurrency").json()
    assert taken["name"] == GPU_LIMIT
    assert client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots == 1
    reset_gpu_limit(client)
    limit = client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    assert (limit.limit, limit.active_slots) == (1, 0)


def test_what_was_set_in_prefect_outlives_another_registration(client):
    def register() -> dict:
        for made in make_deployments(UpOptions(), Catalog(), existing_deployments(client)):
            made.apply()
        return existing_deployments(client)

    before = register()
    found = {entry.name: entry for entry in client.read_deployments()}
    client.pause_deployment(found["new screens"].id)
    change = {"parameters": {"predict": {"draws": 50}}, "concurrency_limit": 3}
    client.request("PATCH", "/deployments/{id}", path_params={"id": found["benchmark"].id}, json=change)
    after = register()
    assert (before["new screens"].paused, after["new screens"].paused) == (False, True)
    assert after["benchmark"].parameters == {"predict": {"draws": 50}}
    assert (before["benchmark"].concurrency_limit, after["benchmark"].concurrency_limit) == (1, 3)
    assert after["label a screen"] == before["label a screen"]


def test_links_lead_to_the_addresses_that_people_see():
    here = ServiceSettings.from_options(UpOptions())
    assert here.mlflow_pages == here.mlflow == here.run_options().pages
    public = UpOptions(prefect_url="https://prefect.example.org", mlflow_url="https://mlflow.example.org")
    seen = ServiceSettings.from_environment(ServiceSettings.from_options(public).as_environment())
    assert (seen.prefect_pages, seen.run_options().pages) == (public.prefect_url, public.mlflow_url)
    assert seen.run_options().mlflow == here.mlflow
