"""Votes: what a model's answer says, and what the answers to one question say together."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from tasks.summer.choices import Outcome, choice_of, line_choice
from tasks.summer.plain_text import plain

OUTCOMES: tuple[Outcome, ...] = ("yes", "no", "insufficient", "unparsed")

_STRONG = re.compile(
    r"\b(?:final|overall|closing)\s+(?:answer|choice|verdict|conclusion|decision|prediction)\b"
    r"\s*(?:is|would be)?\s*[:=\-–—]*"
)
_WEAK = re.compile(
    r"\b(?:(?:the|my)\s+(?:best\s+)?(?:answer|choice|verdict|decision|prediction)\s+(?:is|would\s+be)\s*:?"
    r"|(?:answer|choice|verdict|conclusion|decision|prediction)\s*[:=]"
    r"|i\s+(?:would\s+)?(?:choose|pick|select|answer)\b\s*:?)"
)


def parse_vote(text: str, task: str, *, cut_off: bool = False) -> Outcome:
    """Read the choice out of an answer as models really write them.

    Parameters
    ----------
    text
        The model's whole answer.
    task
        ``de`` (yes / no) or ``dir`` (increase = yes / decrease = no).
    cut_off
        The answer ended at the token limit: a word at its very end may be the beginning of another, and
        only an answer that is announced as such counts.

    Returns
    -------
    str
        ``yes``, ``no``, ``insufficient`` or ``unparsed``: nothing that reads as a choice, more than one
        choice, or the choices merely listed again. Looked at in this order, and the first that gives any
        choice settles it: what follows "final answer", what follows "answer:" and the like, lines that
        consist of a choice.
    """
    body = plain(text)
    if cut_off:
        body = _without_torn_word(body)
    for marker in (_STRONG, _WEAK):
        said = {found for segment in _segments(body, marker) if (found := choice_of(segment, task))}
        if said:
            sure = said - {"unparsed"}
            return sure.pop() if len(sure) == 1 else "unparsed"
    return "unparsed" if cut_off else _from_lines(body, task)


def _without_torn_word(body: str) -> str:
    """Drop the last word unless something follows it: it may be the beginning of a longer one."""
    return re.sub(r"\S*\Z", "", body)


def _segments(body: str, marker: re.Pattern) -> list[str]:
    """What follows each marker: the rest of its line, or the next line where that rest is empty."""
    found = []
    for match in marker.finditer(body):
        rest, _, following = body[match.end() :].partition("\n")
        rest = re.sub(r"^\s*[(\[][^)\]]*[)\]]\s*[:=]", "", rest)
        rest = rest.strip(" :=-–—.")
        found.append(rest or following.lstrip("\n").partition("\n")[0])
    return found


def _from_lines(body: str, task: str) -> Outcome:
    """The choice of the lines that consist of one; lines that list the choices again are passed over."""
    lines = [line_choice(line, task) for line in body.split("\n")]
    blocks: list[list[str]] = []
    for before, found in zip([None, *lines], lines, strict=False):
        if found and before:
            blocks[-1].append(found)
        elif found:
            blocks.append([found])
    said = {block[0] for block in blocks if len(set(block)) == 1} - {"listed"}
    return said.pop() if len(said) == 1 else "unparsed"


def count_votes(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Votes of each question side by side.

    Parameters
    ----------
    outcomes
        One row a vote: ``pert``, ``gene`` and ``outcome`` (one of `OUTCOMES`, or missing where the answer
        failed).

    Returns
    -------
    DataFrame
        One row a question, sorted: ``pert``, ``gene``; ``n_yes``, ``n_no``, ``n_insufficient``,
        ``n_unparsed``, ``n_missing``; ``score`` = mean of the votes that count (yes = 1, no = 0), 0.5 where
        none does; ``score_all`` = mean over all votes, each that does not count as 0.5; ``answered`` = some
        vote counts.
    """
    kinds = (*OUTCOMES, "missing")
    counted = outcomes.assign(outcome=outcomes["outcome"].astype(object).fillna("missing"))
    table = pd.crosstab([counted["pert"], counted["gene"]], counted["outcome"])
    table = table.reindex(columns=list(kinds), fill_value=0).sort_index()
    yes, no = table["yes"].to_numpy(float), table["no"].to_numpy(float)
    total = table.to_numpy(float).sum(axis=1)
    counting = yes + no
    result = table.rename(columns={kind: f"n_{kind}" for kind in kinds}).reset_index()
    result.columns.name = None
    result["score"] = np.divide(yes, counting, out=np.full(len(yes), 0.5), where=counting > 0)
    result["score_all"] = (yes + (total - counting) / 2) / total
    result["answered"] = counting > 0
    return result


def vote_rates(votes: pd.DataFrame) -> dict[str, float]:
    """Share of each outcome among all votes, and of questions with a vote that counts."""
    kinds = (*OUTCOMES, "missing")
    counts = {kind: float(votes[f"n_{kind}"].sum()) for kind in kinds}
    total = max(sum(counts.values()), 1.0)
    rates = {f"rate_{kind}": count / total for kind, count in counts.items()}
    return rates | {"rate_answered": float(votes["answered"].mean()) if len(votes) else 0.0}
