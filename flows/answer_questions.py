"""SUMMER's place in the job: questions to a language model, answers to votes."""

from __future__ import annotations

from flows.options import AnswerOptions

SKIPPED = (
    "SUMMER skipped: no language model engine is given, and this version has none to give (--engine none)."
)


def answer_questions(options: AnswerOptions) -> str:
    """Say why no question was answered; there is no engine to ask yet."""
    return SKIPPED
