"""The one place that decides which Dask cluster computes."""

from __future__ import annotations

import contextlib
import logging
import queue
import uuid
from collections.abc import Callable, Iterator

import dask
from distributed import Client, LocalCluster, get_worker

from storage.errors import InputError

Report = Callable[[str, int, int], None]


@contextlib.contextmanager
def dask_client(address: str | None, *, workers: int) -> Iterator[Client]:
    """Connect to a scheduler by address, or compute with ``workers`` threads of this process.

    Raises
    ------
    InputError
        If nothing answers at the address.
    """
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # A worker logs the errors of its blocks with the way they came; they are raised here all the same.
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
    if address is not None:
        try:
            client = Client(address, timeout=10, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise InputError("--dask", [f"no Dask scheduler answers at {address} ({error})"]) from error
        with client:
            yield client
        return
    quiet = {
        "distributed.admin.large-graph-warning-threshold": "1GB",
        "distributed.worker.memory.terminate": False,
    }
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=1,
            threads_per_worker=workers,
            processes=False,
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def call_remotely(client: Client, function: Callable, *arguments, report: Report):
    """Run ``function(*arguments, report)`` on a worker; what it reports there arrives at ``report`` here."""
    topic, arrived = f"progress-{uuid.uuid4().hex}", queue.SimpleQueue()
    client.subscribe_topic(topic, lambda event: arrived.put(event[1]["progress"]))
    try:
        future = client.submit(_reporting, function, arguments, topic, pure=False)
        # Reported from this thread: the client's own knows nothing of the run it works for.
        future.add_done_callback(lambda _: arrived.put(None))
        while (progress := arrived.get()) is not None:
            report(*progress)
        return future.result()
    finally:
        client.unsubscribe_topic(topic)


def _reporting(function: Callable, arguments: tuple, topic: str):
    worker = get_worker()
    return function(
        *arguments, lambda unit, done, total: worker.log_event(topic, {"progress": (unit, done, total)})
    )
