"""``python -m tests.benchmarks.answers``: is the engine ever idle, and does memory grow with the questions?

A server in a process of its own gives every answer after 200 ms and has 64 slots, so 320 answers a second is
the most there can be. Prompts have the size of real ones. Every number of requests runs in a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time

from aiohttp import web

from storage.answers import AnswerLedger
from tasks.summer.asking import ask
from tasks.summer.engines.openai import OpenAIEngine, ServerOptions
from tasks.summer.engines.protocol import Generation, ModelName, Sampling
from tests.language_models import completion

SECONDS, SLOTS = 0.2, 64
PROMPT = (
    "A gene is knocked down and another is measured; these are some 5,000 characters about the two. " * 52
)


def main() -> None:
    """Run each size in a process of its own, and print what came of it as JSON lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[6_400, 25_600])
    parser.add_argument("--under-way", type=int, default=72, help="requests under way at once")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_measure(arguments.one, arguments.port, arguments.under_way)))
        return
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    port = ours.recv()
    for size in arguments.sizes:
        command = [sys.executable, "-m", __spec__.name, "--one", str(size), "--port", str(port)]
        command += ["--under-way", str(arguments.under_way)]
        subprocess.run(command, check=True)
    server.terminate()


def _measure(count: int, port: int, under_way: int) -> dict[str, float]:
    sampling = Sampling(ModelName("m"), Generation(), votes=1)
    engine = OpenAIEngine(
        sampling.model, sampling.generation, ServerOptions((f"http://127.0.0.1:{port}/v1",), under_way)
    )
    requests = (
        sampling.requests(({"role": "user", "content": f"{number} {PROMPT}"},))[0] for number in range(count)
    )
    before, cpu = _peak_mb(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, AnswerLedger(folder) as ledger:
        asked = asyncio.run(ask(requests, engine, ledger, total=count))
    rate = asked.done / asked.seconds
    return {
        "requests": count,
        "under_way": under_way,
        "answers_per_s": round(rate, 1),
        "share_of_most_possible": round(rate / (SLOTS / SECONDS), 4),
        "cpu_ms_per_answer": round((time.process_time() - cpu) / count * 1000, 2),
        "peak_mb": round(_peak_mb()),
        "grown_mb": round(_peak_mb() - before, 1),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _serve(pipe) -> None:
    async def start() -> None:
        slots = asyncio.Semaphore(SLOTS)

        async def reply(request: web.Request) -> web.Response:
            body = await request.json()
            async with slots:
                await asyncio.sleep(SECONDS)
                return completion(body, "Final answer: yes")

        application = web.Application()
        application.router.add_post("/v1/chat/completions", reply)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pipe.send(site._server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(start())


if __name__ == "__main__":
    main()
