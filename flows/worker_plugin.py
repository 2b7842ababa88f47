"""A Dask worker's side of `flows.worker_logs`; apart from it, because workers need not import Prefect."""

from __future__ import annotations

import logging

from distributed import Worker
from distributed.diagnostics.plugin import ForwardLoggingPlugin


class ForwardOurs(ForwardLoggingPlugin):
    """Forwards a logger's lines from INFO on, and warnings as lines of ``py.warnings``."""

    def setup(self, worker: Worker) -> None:
        """Start forwarding."""
        logging.captureWarnings(True)
        logger = logging.getLogger(self.logger_name)
        logger.setLevel(logging.INFO)
        # A worker in the run's own process would have each line printed twice: here, and as the run's.
        logger.propagate = not worker.address.startswith("inproc")
        super().setup(worker)

    def teardown(self, worker: Worker) -> None:
        """Stop forwarding."""
        logging.getLogger(self.logger_name).propagate = True
        super().teardown(worker)
