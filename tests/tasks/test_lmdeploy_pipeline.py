"""LMDeploy's own pipeline, less its kernels; only in its environment (deployments/lmdeploy), GPU or not.

Configuration, sessions, chat template, checks and streams are LMDeploy's; where its PyTorch engine would
compute on a GPU, transformers generates on the CPU.
"""

from __future__ import annotations

import asyncio
import importlib

import pytest

from storage.answers import AnswerLedger, read_answers
from tasks.summer.asking import Limits, ask
from tasks.summer.engines.choose import LocalOptions
from tasks.summer.engines.lmdeploy import LMDeployEngine
from tasks.summer.engines.protocol import Generation, ModelName, Sampling
from tests.language_models import make_tiny_llama

pytest.importorskip("lmdeploy", reason="LMDeploy has an environment of its own: make lmdeploy")


class OnCpu:
    """Stands where LMDeploy's PyTorch engine is built; its one kind of handle takes one request at a time."""

    def __init__(self, path: str, backend_config):
        from transformers import AutoModelForCausalLM

        self.engine_config, self.seen, self.now, self.most = backend_config, [], 0, 0
        self._model = AutoModelForCausalLM.from_pretrained(path)

    def create_instance(self):
        return self

    def start_loop(self):
        """Nothing runs between requests."""

    def close(self):
        self._model = None

    async def async_stream_infer(self, _session, input_ids, gen_config, **_words):
        messages = importlib.import_module("lmdeploy.messages")
        self.seen.append(gen_config)
        self.now += 1
        self.most = max(self.most, self.now)
        tokens = await asyncio.to_thread(self._generate, input_ids, gen_config)
        self.now -= 1
        yield messages.EngineOutput(messages.ResponseType.FINISH, tokens)

    def _generate(self, input_ids: list[int], gen_config) -> list[int]:
        import torch

        ids = torch.tensor([input_ids])
        torch.manual_seed(gen_config.random_seed)
        sampling = {"do_sample": True, "temperature": gen_config.temperature, "top_p": gen_config.top_p}
        limits = {"max_new_tokens": gen_config.max_new_tokens, "eos_token_id": gen_config.stop_token_ids}
        made = self._model.generate(ids, attention_mask=torch.ones_like(ids), **sampling, **limits)
        return made[0, len(input_ids) :].tolist()


@pytest.fixture
def built(monkeypatch) -> list[OnCpu]:
    """Engines that LMDeploy has built."""
    made: list[OnCpu] = []

    def build(_self, model_path, backend_config=None, **_words):
        made.append(OnCpu(model_path, backend_config))
        return made[-1]

    module = importlib.import_module("lmdeploy.serve.core.async_engine")
    monkeypatch.setattr(module.AsyncEngine, "_build_pytorch", build)
    return made


def test_questions_go_through_lmdeploys_pipeline_and_its_refusals_are_errors(tmp_path, built):
    model = ModelName(str(make_tiny_llama(tmp_path / "model")), "main")
    sampling = Sampling(model, Generation(max_tokens=12))
    options = LocalOptions(backend="pytorch", batch_size=4)
    engine = LMDeployEngine(model, sampling.generation, options, longest_prompt=200)
    texts = [f"Does a knock-down of gene {i} change gene {i + 1}?" for i in range(12)] + ["long " * 900]

    def requests():
        for text in texts:
            yield from sampling.requests(({"role": "user", "content": text},))

    with AnswerLedger(tmp_path / "answers") as ledger:
        limits = Limits(most_failed=99)
        asked = asyncio.run(ask(requests(), engine, ledger, total=3 * len(texts), limits=limits))
    engine.close()
    (cpu,) = built
    rows = [row for batch in read_answers(tmp_path / "answers") for row in batch.to_pylist()]
    assert (asked.requested, asked.done, asked.failed) == (39, 36, 3)
    assert "must be smaller than the model context length (512)" in asked.error
    answered = [row for row in rows if row["status"] != "error"]
    assert {row["finish_reason"] for row in answered} <= {"stop", "length"}
    assert all(row["prompt_tokens"] > 10 and 0 <= row["output_tokens"] <= 12 for row in answered)
    assert (cpu.engine_config.session_len, cpu.engine_config.max_batch_size, cpu.most) == (512, 4, 4)
    assert cpu.engine_config.enable_prefix_caching
    assert {config.random_seed for config in cpu.seen} == {row["seed"] for row in answered}
    assert all(config.do_sample and config.temperature == 0.6 for config in cpu.seen)
