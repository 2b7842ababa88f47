"""Votes: what a model's answer says, and what the answers to one question say together."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

Outcome = Literal["yes", "no", "insufficient", "unparsed"]
OUTCOMES: tuple[Outcome, ...] = ("yes", "no", "insufficient", "unparsed")

# What stands for each outcome, by task; label 1 of dir is up. Longest alternatives first.
_INSUFFICIENT = (
    r"(?:insufficient(?:ly)?|inconclusive|undetermined|not\s+enough)"
    r"(?:\s+(?:evidence|information|data|knowledge))?"
)
_WORDS = {
    "de": {"yes": r"yes", "no": r"no(?:pe)?", "insufficient": _INSUFFICIENT},
    "dir": {
        "yes": r"increas(?:es|ed|ing|e)|up-?\s?regulat(?:es|ed|ion|e)|upwards?|up",
        "no": r"decreas(?:es|ed|ing|e)|down-?\s?regulat(?:es|ed|ion|e)|downwards?|down",
        "insufficient": _INSUFFICIENT,
    },
}
_OPTION = {
    task: re.compile("|".join(rf"(?P<{name}>\b(?:{word})\b)" for name, word in words.items()))
    for task, words in _WORDS.items()
}
# A line's numbering or bullet: "3.", "(c)", "- ", "[x]", "#".
_NUMBERING = re.compile(r"^(?:[-•·>#~]+\s*|\[?[x ]\]\s*|\(?(?:\d{1,2}|[a-h]|i{1,3}|iv)[.):]\s*)+")
_STRONG = re.compile(
    r"\b(?:final|overall|closing)\s+(?:answer|choice|verdict|conclusion|prediction)\b"
    r"\s*(?:is|would be)?\s*[:=\-–—]*"
)
_WEAK = re.compile(
    r"\b(?:(?:the|my)\s+(?:best\s+)?(?:answer|choice|verdict|prediction)\s+(?:is|would\s+be)\s*:?"
    r"|(?:answer|choice|verdict|conclusion|prediction)\s*[:=]"
    r"|i\s+(?:would\s+)?(?:choose|pick|select|answer)\b\s*:?)"
)
_THINKING = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_OPEN_THINKING = re.compile(r"<think(?:ing)?>.*\Z", re.DOTALL)
# The question's own word, which is no answer: "knock-down", "knocking STAT1 down".
_KNOCK_DOWN = re.compile(r"\bknock(?:ed|ing|s)?(?:\s+\w+)?[-\s]?down\b")
# What "up after ..." has and "ends up with" has not.
_GOES_ON = re.compile(
    r"\s+(?!(?:after|upon|when|if|following|because|since|as|due|by|relative|compared|in\s+response)\b)\w"
)
_NEGATION = re.compile(
    r"\b(?:no|not|neither|nor|never|than|instead of|cannot|(?:ca|do|does|did|is|are|was|were|wo|would|will|"
    r"could|should)nt)\s*$"
)
# Where the answer proper ends and its reasons begin.
_REASONS = re.compile(r"[.;!?(\n]|\s[-–—]\s|,|\b(?:because|since|as|due|given|based|note)\b")
# A restated list of choices joins them so, with a neutral verb or nothing else in between.
_JOINED = re.compile(r"^\s*(?:[/|,;]|\bor\b|\band\b|[\s/|,;'\"()\[\].]|\d{1,2}[.):]|\b[a-c][.):])*\s*$")


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
    body = _plain(text)
    if cut_off:
        body = _without_torn_word(body)
    for marker in (_STRONG, _WEAK):
        said = {found for segment in _segments(body, marker) if (found := _choice(segment, task))}
        if said:
            return said.pop() if len(said) == 1 else "unparsed"
    return "unparsed" if cut_off else _from_lines(body, task)


def _plain(text: str) -> str:
    """Lower case without markup, hidden reasoning and typographic variety."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _OPEN_THINKING.sub(" ", _THINKING.sub(" ", text))
    # What a model puts in a box is its final answer.
    text = re.sub(r"\\boxed\s*\{(?:\\\w+\s*\{)?([^{}]*)\}+", r"\nfinal answer: \1\n", text)
    text = re.sub(r"\\(?:text|textbf|mathrm)\s*", " ", text)
    text = _KNOCK_DOWN.sub("perturbation", re.sub(r"[*_`\"“”‘’'{}$]", "", text))
    text = "\n".join(re.sub(r"[ \t\f\v\r]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{2,}", "\n\n", text).strip("\n")


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


def _choice(segment: str, task: str) -> Outcome | None:
    """The one choice a segment makes; None where it makes none, or lists several."""
    segment = _NUMBERING.sub("", segment).strip()
    mentions = [(match.lastgroup, match.span()) for match in _OPTION[task].finditer(segment)]
    mentions = [m for m in mentions if not _is_prose(segment, m)]
    if not mentions or _is_restated(segment, mentions):
        return None
    if len({name for name, _ in mentions}) == 1:
        return None if _is_negated(segment, mentions[0][1][0]) else mentions[0][0]
    if mentions[0][0] == "insufficient" and {"yes", "no"} <= {name for name, _ in mentions[1:]}:
        return "insufficient"  # "insufficient evidence to say yes or no"
    # Several different ones: the choice stands before its reasons, or there is none.
    reasons = _REASONS.search(segment)
    head = [m for m in mentions if m[1][1] <= reasons.start()] if reasons else mentions
    names = {name for name, _ in head}
    tail = {name for name, _ in mentions[len(head) :]}
    if len(names) != 1 or "insufficient" in tail | names or _is_negated(segment, head[0][1][0]):
        return "unparsed"
    return head[0][0]


def _is_prose(segment: str, mention: tuple[str, tuple[int, int]]) -> bool:
    """Whether the word means something else: the "no" of "no evidence", the "up" of "ends up with"."""
    start, end = mention[1]
    small = segment[start:end] in {"no", "up", "down"}
    return small and start > 0 and _GOES_ON.match(segment[end:]) is not None


def _is_negated(segment: str, start: int) -> bool:
    return _NEGATION.search(segment[:start]) is not None


def _is_restated(segment: str, mentions: Sequence[tuple[str, tuple[int, int]]]) -> bool:
    """Whether the segment only lists at least two of the choices one after the other."""
    if len({name for name, _ in mentions}) < 2:
        return False
    gaps = [segment[a[1][1] : b[1][0]] for a, b in itertools.pairwise(mentions)]
    return all(_JOINED.match(gap) for gap in gaps)


def _from_lines(body: str, task: str) -> Outcome:
    """The choice of the lines that consist of one; lines that list the choices again are passed over."""
    lines = [_line_choice(line, task) for line in body.split("\n")]
    blocks: list[list[str]] = []
    for before, found in zip([None, *lines], lines, strict=False):
        if found and before:
            blocks[-1].append(found)
        elif found:
            blocks.append([found])
    said = {block[0] for block in blocks if len(set(block)) == 1}
    if len(said) == 1:
        return said.pop()
    return "unparsed"


def _line_choice(line: str, task: str) -> str | None:
    """The choice a line consists of; "listed" where it consists of several."""
    line = _NUMBERING.sub("", line).strip(" .:;,!()[]")
    whole = _OPTION[task].fullmatch(line)
    if whole:
        return whole.lastgroup
    # "yes, because ..." and "no - the two ..." are lines of their choice too, "no gene ..." is not.
    head = re.match(r"[^.;:,(–—]*?(?=[.;:,(–—]|\s-\s)", line)
    found = _OPTION[task].fullmatch(head.group().strip()) if head else None
    if found is None:
        return None
    return _choice(line, task) or "listed"


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
