"""The part of `pqa up` that registers all deployments and runs what is asked of them."""

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
from deployments.housekeeping import bury_runs, known_deployments, limit_gpu, skip_missed, tell_of_failures
from deployments.surroundings import Surroundings
from flows.up_options import UpOptions
from storage.errors import PqaError

#: Seconds between two looks for new names to be offered in the forms.
LOOK = 10.0


def main() -> None:
    """Register, say that all is ready, and run until a SIGTERM."""
    options = UpOptions.model_validate_json(os.environ["PQA_UP"])
    here = Surroundings.here()
    with get_client(sync_client=True) as client:
        dead = bury_runs(client, "Its process ended with an earlier `pqa up`; Retry goes on where it was.")
        missed = skip_missed(client)
        _say(f"{dead} runs of before marked crashed, {missed} missed ones cancelled")
        limit_gpu(client)
        tell_of_failures(client, options.notify, here.prefect_pages)
    asyncio.run(_serve(options, here))
    with get_client(sync_client=True) as client:
        bury_runs(client, "`pqa up` was ended while it ran; Retry goes on where it was.")


async def _serve(options: UpOptions, here: Surroundings) -> None:
    catalog = _look(here)
    # Schedules stay as they are: somebody may have changed them, and missed runs are cancelled at the start.
    runner = Runner(name="pqa", limit=options.at_once, pause_on_shutdown=False)
    for deployment in await _deployments(options, catalog):
        await runner.aadd_deployment(deployment)
    refreshing = asyncio.create_task(_refresh(options, here, catalog))
    running = asyncio.create_task(runner.start())
    # The runner sets a handler of its own when it starts, which would leave without a word to the server.
    await asyncio.sleep(0)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    ready = Path(os.environ["PQA_READY"])
    # The leash this runs on is the process that `pqa up` knows.
    ready.write_text(str(os.getppid()))
    try:
        await running
    except asyncio.CancelledError:
        _say("asked to end")
    finally:
        refreshing.cancel()
        ready.unlink(missing_ok=True)


async def _refresh(options: UpOptions, here: Surroundings, offered: Catalog) -> None:
    """Offer new names in the forms as they come, and no longer those that are gone."""
    # The night and the time zone were set at the start; what is changed in Prefect since then is kept.
    options = options.model_copy(update={"nightly": None, "timezone": None})
    while True:
        await asyncio.sleep(LOOK)
        try:
            found = await asyncio.to_thread(_look, here)
            if found != offered:
                for deployment in await _deployments(options, found):
                    await deployment.aapply()
                _say("the forms offer other names now")
                offered = found
        except (OSError, HTTPError, PrefectException) as error:
            # A folder that cannot be read now, or a server that is just starting: runs must not end for that.
            _say(f"names in the forms could not be looked at ({error}); tried again")


async def _deployments(options: UpOptions, catalog: Catalog) -> list[RunnerDeployment]:
    def known() -> dict:
        with get_client(sync_client=True) as client:
            return known_deployments(client)

    return make_deployments(options, catalog, await asyncio.to_thread(known))


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} | {words}", flush=True)


def _look(here: Surroundings) -> Catalog:
    return read_catalog(here.data, here.workspace, here.watch)


if __name__ == "__main__":
    try:
        main()
    except PqaError as problem:
        sys.exit(str(problem))
