"""Counterparts of a language model: a server that does what a script says, and a tiny real one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import requests
from aiohttp import web

from storage.answers import read_answers
from tests.waiting import LONG

#: What a script may do with a request: reply with this text, or one of the misdeeds below.
Script = Callable[[dict, int], "str | Misdeed"]


@dataclass(frozen=True)
class Misdeed:
    """A reply that is not an answer.

    Attributes
    ----------
    kind
        ``status``: reply with ``status``; ``drop``: close the connection half-way; ``slow``: never reply;
        ``garbage``: 200 with something else; ``length``: cut off after ``text``.
    """

    kind: str
    status: int = 500
    text: str = ""
    retry_after: str | None = None


@dataclass
class ScriptedServer:
    """An OpenAI-compatible server in a thread, which answers by a script.

    Attributes
    ----------
    script
        Told the request's body and how often this prompt and seed was asked before.
    seconds
        Time an answer takes.
    counts, usage
        Whether tokens are counted in a reply; what stands there instead of the count.
    """

    script: Script
    seconds: float = 0.0
    key: str = ""
    counts: bool = True
    usage: object = None
    port: int = 0
    bodies: list[dict] = field(default_factory=list)
    most_at_once: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ScriptedServer:
        self._loop = asyncio.new_event_loop()
        self._tries: dict[str, int] = {}
        self._now = 0
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._reply)
        runner = web.AppRunner(application, access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        self._loop.run_until_complete(site.start())
        self.port = site._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        # A request that is never answered must not hold up the end.
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with contextlib.suppress(Exception):
            self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _reply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            said = request.headers.get("Authorization", "")
            return web.json_response({"error": f"wrong key {said}"}, status=401)
        word = json.dumps([body["messages"], body["seed"]])
        number = self._tries.get(word, 0)
        self._tries[word] = number + 1
        self.bodies.append(body)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await asyncio.sleep(self.seconds)
            said = self.script(body, number)
            return (
                completion(body, said, counts=self.counts, usage=self.usage)
                if isinstance(said, str)
                else await self._misbehave(request, body, said)
            )
        finally:
            self._now -= 1

    async def _misbehave(self, request: web.Request, body: dict, how: Misdeed) -> web.StreamResponse:
        if how.kind == "drop":
            request.transport.close()
        if how.kind == "slow":
            await asyncio.sleep(3600)
        if how.kind == "garbage":
            return web.Response(text="<html>a proxy's page</html>")
        if how.kind == "length":
            return completion(body, how.text, "length")
        headers = {"Retry-After": how.retry_after} if how.retry_after else {}
        said = request.headers.get("Authorization", "")
        return web.json_response({"error": f"no: {said}"}, status=how.status, headers=headers)


def count_statuses(folder: Path) -> Counter:
    """How many keys of a ledger ended in which way."""
    rows = (row for batch in read_answers(folder, ("key", "status")) for row in batch.to_pylist())
    return Counter({row["key"]: row["status"] for row in rows}.values())


def completion(
    body: dict, text: str, reason: str = "stop", *, counts: bool = True, usage: object = None
) -> web.Response:
    """A chat completion in the usual form, with or without its tokens counted."""
    prompt = sum(len(turn["content"].split()) for turn in body["messages"])
    message = {"role": "assistant", "content": text}
    reply: dict = {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}
    if counts:
        counted = {"prompt_tokens": prompt, "completion_tokens": len(text.split())}
        reply["usage"] = counted if usage is None else usage
    return web.json_response(reply)


def make_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """Write a random Llama of a few thousand weights with a BPE tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|begin|>", "<|end|>", "<|user|>", "<|system|>", "<|assistant|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    corpus = ["Final answer: yes", "Final answer: no", "the gene is knocked down and measured"] * 20
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>")
    fast.chat_template = (
        "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=8192,
            bos_token_id=fast.bos_token_id,
            eos_token_id=fast.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@contextlib.contextmanager
def transformers_serve(model: Path) -> Iterator[str]:
    """Serve a model with ``transformers serve`` on the CPU; gives the base address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}
    log = model / "serve.log"
    with log.open("w") as handle:
        process = subprocess.Popen(command, stdout=handle, stderr=handle, env=os.environ | settings)
        try:
            deadline = time.monotonic() + LONG
            while time.monotonic() < deadline:
                assert process.poll() is None, log.read_text()[-2000:]
                with contextlib.suppress(requests.ConnectionError, requests.Timeout):
                    if requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(20)
