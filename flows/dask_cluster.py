"""The one place that decides which Dask cluster computes."""

from __future__ import annotations

import contextlib
import logging
import queue
import uuid
from collections.abc import Callable, Iterator

import dask
from distributed import Client, LocalCluster, get_worker

from flows.dask_presets import cluster_maker, read_preset
from flows.worker_logs import logged_here
from storage.errors import InputError

Report = Callable[[str, int, int], None]

log = logging.getLogger(__name__)


@contextlib.contextmanager
def dask_client(address: str | None, *, workers: int) -> Iterator[Client]:
    """Connect to a scheduler, start a preset's cluster, or compute with ``workers`` threads of this process.

    Parameters
    ----------
    address
        A scheduler's address such as ``tcp://host:8786``; or a preset's name or YAML file.

    Raises
    ------
    InputError
        If nothing answers at the address, there is no such preset, or its cluster does not start.
    """
    logging.getLogger("distributed").setLevel(logging.WARNING)
    # A worker logs the errors of its blocks with the way they came; they are raised here all the same.
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_no_abandoned_wait)
    preset = None if address is None or "://" in address else read_preset(address)
    if address is not None and (preset is None or preset.address is not None):
        with _connected(address if preset is None else preset.address) as client:
            yield client
        return
    if preset is not None:
        with _started(cluster_maker(preset), address) as cluster, _connected(cluster) as client:
            if not client.scheduler_info()["workers"]:
                # A batch system's queue may take hours: nobody is to think that nothing happens.
                log.warning("no worker of %s yet; work begins with the first one", address)
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
        logged_here(client),
    ):
        yield client


def _no_abandoned_wait(record: logging.LogRecord) -> bool:
    """Keep out what a closed cluster leaves behind: a sender's wait for its next batch, timed out unheard."""
    error = record.exc_info[1] if record.exc_info else None
    unheard = "Future exception was never retrieved" in record.getMessage()
    return not (unheard and isinstance(error, TimeoutError) and error.__traceback__ is None)


@contextlib.contextmanager
def _connected(where: object) -> Iterator[Client]:
    try:
        client = Client(where, timeout=30, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError("--dask", [f"no Dask scheduler answers at {where} ({error})"]) from error
    with client, logged_here(client):
        yield client


@contextlib.contextmanager
def _started(start: Callable, name: str) -> Iterator:
    try:
        cluster = start()
    except (OSError, RuntimeError, TypeError, ValueError, TimeoutError) as error:
        raise InputError("--dask", [f"the cluster of preset {name} does not start ({error})"]) from error
    with cluster:
        yield cluster


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
        # A client that was closed has none, and what closed it is to be told.
        if client.status == "running":
            client.unsubscribe_topic(topic)


def _reporting(function: Callable, arguments: tuple, topic: str):
    worker = get_worker()
    return function(
        *arguments, lambda unit, done, total: worker.log_event(topic, {"progress": (unit, done, total)})
    )
