"""What code says on Dask workers arrives in the log of the Prefect run it works for."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from distributed import Client

from flows.worker_plugin import ForwardOurs

#: Loggers whose lines on a worker are of interest to a user.
ROOMS = ("tasks", "storage", "py.warnings")


@contextlib.contextmanager
def logged_here(client: Client) -> Iterator[None]:
    """Hand our loggers' lines on the workers to the run that this is called in; outside of one, to none.

    All runs that use a cluster at the same time hear of all its workers, so a line may be another run's.
    """
    if "prefect" not in sys.modules:
        # A command that runs without Prefect need not wait seconds for it to be imported.
        yield
        return
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        logger = get_run_logger()
    except MissingContextError:
        yield
        return

    def tell(event: tuple) -> None:
        record = event[1]
        logger.log(record["levelno"], "%s (Dask worker %s)", record["msg"], record["worker"])

    for room in ROOMS:
        topic = f"pqa-log-{room}"
        client.subscribe_topic(topic, tell)
        # The plugin stays when this run ends: another run on the same cluster may still listen.
        client.register_plugin(ForwardOurs(room, logging.INFO, topic), f"pqa-log-{room}")
    yield
