"""`pqa up`: hands over to the deployments, which know the flows and not the other way round."""

from __future__ import annotations

import os
import sys
from argparse import Namespace

from flows.arguments import read_options
from flows.up_options import UpOptions


def run(arguments: Namespace) -> None:
    """Become ``python -m deployments.up`` with the options as JSON."""
    options = read_options(UpOptions, arguments)
    os.execv(sys.executable, [sys.executable, "-m", "deployments.up", options.model_dump_json()])
