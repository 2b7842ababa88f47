"""`pqa benchmark`: the main job as a Prefect flow, then where to look."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from flows.arguments import read_options
from flows.benchmark import run_benchmark
from flows.commands.printing import print_json
from flows.compare_stages import leaderboards_of
from flows.data_set_job import Compared
from flows.environment import shorten_user_errors
from flows.first_checks import check_inputs
from flows.options import BenchmarkOptions
from flows.prefect_server import prefect_server
from flows.servers import check_servers
from storage.tracking import local_uri
from tasks.scoring.task_names import TASK_TITLES


def run(arguments: Namespace) -> None:
    """The main job as a Prefect flow, then where to look."""
    options = read_options(BenchmarkOptions, arguments, config=arguments.config)
    check_inputs(options)
    check_servers(options.run.mlflow)
    shorten_user_errors()
    workspace = options.run.workspace
    with prefect_server(workspace) as url:
        print(f"Prefect shows this run at {url} while it lasts", file=sys.stderr, flush=True)
        results = run_benchmark(options)
    if arguments.json:
        print_json([_result(result) for result in results])
        return
    for result in results:
        print(f"\n{result.data_set}: AUROC per gene on perturbations never seen (95 % interval)")
        for name, board in leaderboards_of(result.comparison).items():
            task, _, track = name.partition("-")
            print(f"  {task}: {TASK_TITLES[task]}{', learning from other lines too' if track else ''}")
            width = max(12, board["predictor"].str.len().max())
            for row in board.itertuples():
                interval = f"({row.auroc_low:.3f} to {row.auroc_high:.3f})"
                spread = f"  {row.n_fits} fits, sd {row.auroc_fits_sd:.3f}" if row.n_fits > 1 else ""
                print(f"    {row.predictor:<{width}} {row.auroc:.3f}  {interval}{spread}")
        print(f"  report: {result.report}")
    print(f"\n{_how_to_look(options)}")


def _result(result: Compared) -> dict:
    boards = {name: rows.to_dict("records") for name, rows in leaderboards_of(result.comparison).items()}
    return {
        "data_set": result.data_set,
        "report": str(result.report),
        "mlflow_run": result.run_id,
        "leaderboards": boards,
    }


def _how_to_look(options: BenchmarkOptions) -> str:
    workspace = options.run.workspace.resolve()
    lines = ["To look closer:"]
    if "PREFECT_HOME" in os.environ and not os.environ.get("PREFECT_API_URL"):
        home = shlex.quote(os.environ["PREFECT_HOME"])
        lines.append(f"  Prefect  PREFECT_HOME={home} {_beside('prefect')} server start")
    if options.run.mlflow is None:
        store = shlex.quote(local_uri(workspace))
        lines.append(f"  MLflow   {_beside('mlflow')} server --backend-store-uri {store}")
    else:
        lines.append(f"  MLflow   {options.run.mlflow}")
    return "\n".join(lines)


def _beside(program: str) -> str:
    """The program of the environment this runs in."""
    path = Path(sys.executable).with_name(program)
    return str(path) if path.exists() else program
