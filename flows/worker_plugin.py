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
        logging.getLogger(self.logger_name).setLevel(logging.INFO)
        super().setup(worker)
