"""Which engine a job uses: the one it has while that fits the prompts, else a new one."""

from __future__ import annotations

import pytest

from flows.answer_options import AnswerOptions
from flows.language_model import LanguageModel
from tasks.summer.engines.lmdeploy import LMDeployEngine
from tasks.summer.engines.protocol import Generation

GENERATION = Generation(max_tokens=1024)


@pytest.fixture
def closed(monkeypatch):
    """Engines that were let go of."""
    engines = []
    monkeypatch.setattr(LMDeployEngine, "close", lambda engine: engines.append(engine))
    return engines


def model_for(tmp_path, **options):
    return LanguageModel(AnswerOptions(model="llama", **options), tmp_path / "ledger", lambda: "key")


def test_an_engine_that_is_too_short_with_the_chat_template_is_not_kept(tmp_path, closed):
    with model_for(tmp_path, engine="lmdeploy") as model:
        # 900 + 32 + 1024 tokens, rounded up to 2,048.
        first = model._engine_for(900, GENERATION)
        assert model._engine_for(992, GENERATION) is first
        # 993 + 1,024 are less than 2,048; the template's 32 do not fit any more.
        second = model._engine_for(993, GENERATION)
        assert second is not first
        assert closed == [first]
        assert second.fits(993, GENERATION)
    assert closed == [first, second]


def test_an_engine_that_is_kept_samples_as_the_next_questions_ask(tmp_path, closed):
    with model_for(tmp_path, engine="lmdeploy") as model:
        first = model._engine_for(900, GENERATION)
        shorter = Generation(max_tokens=100)
        assert model._engine_for(900, shorter) is first
        assert first.generation == shorter


def test_servers_are_asked_by_one_engine_whatever_the_prompts(tmp_path):
    with model_for(tmp_path, engine="openai") as model:
        first = model._engine_for(10, GENERATION)
        assert model._engine_for(10**6, GENERATION) is first


def test_a_job_that_never_asked_has_nothing_to_close(tmp_path, closed):
    with model_for(tmp_path, engine="lmdeploy"):
        pass
    assert closed == []
