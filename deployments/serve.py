"""The service of `pqa up` that registers all deployments and runs what is asked of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import PrefectException
from prefect.runner import Runner

from deployments.catalog import Catalog, read_catalog
from deployments.factory import make_deployments
from deployments.server_state import (
    cancel_missed,
    existing_deployments,
    mark_crashed,
    notify_of_failures,
    release_leases,
    reset_gpu_limit,
)
from deployments.settings import ServiceSettings
from flows.up_options import UpOptions
from storage.errors import PqaError

#: Seconds between two updates of the names that the forms offer.
REFRESH_SECONDS = 10.0


def main() -> None:
    """Register the deployments, write the file that says they are ready, and run until a SIGTERM.

    Raises
    ------
    PqaError
        If there is no notification block of the name given.
    """
    options = UpOptions.model_validate_json(os.environ["PQA_UP"])
    settings = ServiceSettings.from_environment()
    with get_client(sync_client=True) as client:
        crashed = mark_crashed(
            client, "Its process ended with an earlier `pqa up`; Retry goes on where it was."
        )
        missed = cancel_missed(client)
        _log(f"{crashed} runs of before marked crashed, {missed} missed ones cancelled")
        release_leases(client, settings.workspace / "prefect" / "concurrency_leases")
        reset_gpu_limit(client)
        notify_of_failures(client, options.notify, settings.prefect_pages)
    asyncio.run(_serve(options, settings))
    with get_client(sync_client=True) as client:
        mark_crashed(client, "`pqa up` was ended while it ran; Retry goes on where it was.")


async def _serve(options: UpOptions, settings: ServiceSettings) -> None:
    catalog = _read_catalog(settings)
    # Schedules stay as they are: somebody may have changed them, and missed runs are cancelled at the start.
    runner = Runner(name="pqa", limit=options.at_once, pause_on_shutdown=False)
    for deployment in await _deployments(options, catalog):
        await runner.aadd_deployment(deployment)
    refreshing = asyncio.create_task(_refresh(options, settings, catalog))
    running = asyncio.create_task(runner.start())
    # The runner sets a handler of its own when it starts, which would leave without a word to the server.
    await asyncio.sleep(0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    ready = Path(os.environ["PQA_READY"])
    # The process that the supervisor started is the wrapper around this one.
    ready.write_text(str(os.getppid()))
    try:
        await running
    except asyncio.CancelledError:
        _log("asked to end")
    finally:
        refreshing.cancel()
        ready.unlink(missing_ok=True)


async def _refresh(options: UpOptions, settings: ServiceSettings, offered: Catalog) -> None:
    """Offer new names in the forms as they come, and drop those that are gone."""
    # The night and the time zone were set at the start; what is changed in Prefect since then is kept.
    options = options.model_copy(update={"nightly": None, "timezone": None})
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            found = await asyncio.to_thread(_read_catalog, settings)
            if found != offered:
                for deployment in await _deployments(options, found):
                    await deployment.aapply()
                _log("the forms offer other names now")
                offered = found
        except (OSError, HTTPError, PrefectException) as error:
            # A folder that cannot be read now, or a server that is just starting: runs must not end for that.
            _log(f"names in the forms could not be looked at ({error}); tried again")


async def _deployments(options: UpOptions, catalog: Catalog) -> list[RunnerDeployment]:
    def existing() -> dict:
        with get_client(sync_client=True) as client:
            return existing_deployments(client)

    return make_deployments(options, catalog, await asyncio.to_thread(existing))


def _log(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} | {message}", flush=True)


def _read_catalog(settings: ServiceSettings) -> Catalog:
    return read_catalog(settings.data, settings.workspace, settings.watch)


if __name__ == "__main__":
    try:
        main()
    except PqaError as problem:
        sys.exit(str(problem))
