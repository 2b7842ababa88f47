"""How LMDeploy is called, on a stand-in with the signatures of LMDeploy 0.18, without a GPU."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import pytest

from storage.answers import AnswerLedger, read_answers
from tasks.summer.asking import Limits, ask
from tasks.summer.engines.choose import LocalOptions, make_engine
from tasks.summer.engines.lmdeploy import TEMPLATE_TOKENS, LMDeployEngine, session_length
from tasks.summer.engines.openai import ServerOptions
from tasks.summer.engines.protocol import EngineError, Generation, ModelName, Sampling

SAMPLING = Sampling(ModelName("llama", "abc"), Generation(max_tokens=100))


class RequestError(RuntimeError):
    pass


@dataclass
class GenerationConfig:
    """The fields of 0.18's that are used, with its own defaults."""

    max_new_tokens: int = 512
    do_sample: bool = False
    top_p: float = 1.0
    temperature: float = 0.8
    random_seed: int | None = None


@dataclass
class TurbomindEngineConfig:
    tp: int = 1
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float = 0.8
    enable_prefix_caching: bool = False
    quant_policy: int = 0
    revision: str | None = None


class PytorchEngineConfig(TurbomindEngineConfig):
    pass


class FakePipeline:
    """Answers on an event loop of its own thread, as LMDeploy's does; refuses use from any other."""

    def __init__(self, name, config, reply):
        self.name, self.config, self._reply = name, config, reply
        self.internal_thread = SimpleNamespace(loop=asyncio.new_event_loop())
        self._thread = threading.Thread(target=self.internal_thread.loop.run_forever, daemon=True)
        self._thread.start()
        self.session_mgr = SimpleNamespace(get=self._session)
        self.async_engine = self
        self.seen, self.sessions, self.most_at_once, self._now, self.closed = [], 0, 0, 0, False

    def _session(self):
        assert threading.current_thread() is self._thread
        self.sessions += 1
        return self.sessions

    async def preprocess(self, messages, session_id, gen_config=None):
        self.seen.append((messages, session_id, gen_config))
        if "too long" in messages[-1]["content"]:
            raise RequestError("The request exceeds the model context length.")
        return SimpleNamespace(messages=messages, gen_config=gen_config)

    async def generate(self, request, stream_response=True):
        assert stream_response is False
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0.01)
        self._now -= 1
        text, reason = self._reply(request.messages[-1]["content"])
        words = {"input_token_len": 7, "generate_token_len": 3, "cached_tokens": 4}
        if reason == "crash":
            raise RequestError("An internal server error occurred.")
        for chunk, ended in ((text, None), ("", reason)):
            yield SimpleNamespace(response=chunk, finish_reason=ended, **words)

    def close(self):
        self.closed = True
        self.internal_thread.loop.call_soon_threadsafe(self.internal_thread.loop.stop)


@pytest.fixture
def lmdeploy(monkeypatch):
    """A module in LMDeploy's place; its pipelines are in ``made``."""
    module = ModuleType("lmdeploy")
    module.GenerationConfig = GenerationConfig
    module.TurbomindEngineConfig, module.PytorchEngineConfig = TurbomindEngineConfig, PytorchEngineConfig
    module.made, module.reply = [], lambda text: ("Final answer: yes", "stop")

    def pipeline(name, backend_config=None):
        module.made.append(FakePipeline(name, backend_config, module.reply))
        return module.made[-1]

    module.pipeline = pipeline
    monkeypatch.setitem(sys.modules, "lmdeploy", module)
    return module


def requests_for(*texts):
    for text in texts:
        yield from SAMPLING.requests(({"role": "user", "content": text},))


def run(folder, engine, *texts, total=30):
    with AnswerLedger(folder) as ledger:
        asked = asyncio.run(
            ask(requests_for(*texts), engine, ledger, total=total, limits=Limits(most_failed=99))
        )
    return asked, [row for batch in read_answers(folder) for row in batch.to_pylist()]


def engine_with(**options):
    return LMDeployEngine(SAMPLING.model, SAMPLING.generation, LocalOptions(**options), longest_prompt=1000)


def test_sampling_is_on_with_another_seed_for_each_vote(tmp_path, lmdeploy):
    asked, rows = run(tmp_path, engine_with(), "a", "b")
    configs = [config for _, _, config in lmdeploy.made[0].seen]
    assert all(config.do_sample for config in configs)
    assert {(config.temperature, config.top_p, config.max_new_tokens) for config in configs} == {
        (0.6, 0.9, 100)
    }
    assert len({config.random_seed for config in configs}) == 6
    assert asked.done == 6
    assert {(row["status"], row["prompt_tokens"], row["cached_tokens"]) for row in rows} == {("ok", 7, 4)}


def test_the_engine_is_configured_as_asked_and_loaded_once(tmp_path, lmdeploy):
    engine = engine_with(tensor_parallel=4, batch_size=16, backend="pytorch")
    run(tmp_path, engine, "a")
    run(tmp_path, engine, "b")
    (pipe,) = lmdeploy.made
    assert isinstance(pipe.config, PytorchEngineConfig)
    assert (pipe.name, pipe.config.tp, pipe.config.quant_policy, pipe.config.revision) == (
        "llama",
        4,
        8,
        "abc",
    )
    assert (pipe.config.enable_prefix_caching, pipe.config.max_batch_size) == (True, 16)
    assert pipe.config.session_len >= 1000 + 100
    engine.close()
    assert pipe.closed


def test_the_engine_is_fed_without_batches(tmp_path, lmdeploy):
    run(tmp_path, engine_with(batch_size=8), *(str(number) for number in range(20)), total=60)
    assert lmdeploy.made[0].most_at_once == 10
    sessions = [session for _, session, _ in lmdeploy.made[0].seen]
    assert len(set(sessions)) == 60


def test_what_goes_wrong_with_one_request_is_its_own_affair(tmp_path, lmdeploy):
    endings = {"fine": ("yes", "stop"), "cut": ("ye", "length"), "mute": ("", "stop"), "gone": ("", "abort")}
    endings |= {"oom": ("", "crash")}
    lmdeploy.reply = lambda text: endings[text]
    asked, rows = run(tmp_path, engine_with(), *endings, "too long")
    assert (asked.done, asked.failed) == (9, 9)
    found = {(row["status"], row["error"]) for row in rows}
    assert {status for status, _ in found} == {"ok", "length", "empty", "error"}
    assert any("context length" in error for _, error in found)
    assert any("'abort'" in error for _, error in found)


def test_the_session_length_is_checked_before_the_model_is_loaded(lmdeploy):
    generation = Generation(max_tokens=1024)
    assert session_length(1000, generation, None) % 512 == 0
    assert session_length(1000, generation, None) >= 2024
    with pytest.raises(EngineError, match="--session-len 1500 is too short"):
        session_length(1000, generation, 1500)
    with pytest.raises(EngineError, match="longest prompt has 1000 tokens"):
        engine_with(session_len=1050)
    assert lmdeploy.made == []


def test_an_engine_fits_what_a_new_one_would_be_made_for(lmdeploy):
    generation = Generation(max_tokens=100)
    needed = 1000 + TEMPLATE_TOKENS + 100
    engine = engine_with(session_len=needed)
    assert engine.fits(1000, generation)
    assert not engine.fits(1001, generation)
    assert not engine.fits(1000, Generation(max_tokens=101))
    with pytest.raises(EngineError, match=f"give {needed + 1} or more"):
        session_length(1001, generation, needed)


def test_without_lmdeploy_the_user_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdeploy", None)
    with pytest.raises(EngineError, match=r"deployments/lmdeploy/README\.md"):
        run(tmp_path, engine_with(), "a")


def test_a_model_that_does_not_load_is_said_in_a_sentence(tmp_path, lmdeploy):
    def pipeline(name, backend_config=None):
        raise RuntimeError("CUDA out of memory")

    lmdeploy.pipeline = pipeline
    with pytest.raises(EngineError, match="CUDA out of memory; check the model's name"):
        run(tmp_path, engine_with(), "a")


def test_engines_are_made_by_name_without_importing_the_other(monkeypatch):
    monkeypatch.delitem(sys.modules, "lmdeploy", raising=False)
    local, server = LocalOptions(), ServerOptions()
    words = {"server": server, "local": local, "api_key": "", "longest_prompt": 10}
    made = make_engine("lmdeploy", SAMPLING.model, SAMPLING.generation, **words)
    assert isinstance(made, LMDeployEngine)
    assert "lmdeploy" not in sys.modules
