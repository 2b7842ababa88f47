"""Which choice a stretch of text makes: one, none, or one that cannot be told."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["yes", "no", "insufficient", "unparsed"]

# What stands for each outcome, by task; label 1 of dir is up. Longest alternatives first.
_INSUFFICIENT = (
    r"(?:insufficient(?:ly)?|inconclusive|undetermined|not\s+enough)"
    r"(?:\s+(?:evidence|information|data|knowledge))?"
)
_NO_CHANGE = (
    r"no(?:\s+(?:clear|significant|strong|major|notable|substantial|direct|measurable|detectable|obvious|"
    r"expected|meaningful|consistent|mrna|expression))*\s+(?:changes?|effects?|differences?)"
)
_WORDS = {
    "de": {"yes": r"yes", "no": rf"{_NO_CHANGE}|no(?:pe)?", "insufficient": _INSUFFICIENT},
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
# The question's own word, which is no answer: "knock-down", "knocking STAT1 down".
_KNOCK_DOWN = re.compile(r"\bknock(?:ed|ing|s)?(?:\s+\w+)?[-\s]?down\b")
_NO_DOUBT = re.compile(r"\b(?:no|without|beyond)\s+(?:a\s+|any\s+)?(?:reasonable\s+)?(?:doubt|question)\b")
_AFTER = r"after|upon|when|if|following|because|since|as|due|by|relative|compared|in\s+response"
# What "up after ..." has and "ends up with" has not; what "no the gene ..." has and "no evidence" has not.
_GOES_ON = re.compile(rf"\s+(?!(?:{_AFTER})\b)\w")
_NO_OF_SOMETHING = re.compile(rf"\s+(?!(?:{_AFTER}|or|but|so|not|it|its|they|the|this|these|there|i|we)\b)\w")
# Where a sentence ends, and where a clause does: at a mark, or before a word that begins another.
_SENTENCE_END = re.compile(r"[.;!?](?=\s|$)|\n")
_CLAUSE_END = re.compile(
    rf"{_SENTENCE_END.pattern}|:(?=\s|$)|[,()\[\]–—]|\s-+\s"
    r"|\s(?=(?:because|since|as|due|given|based|note|so|but|hence|thus|therefore|although|though|while|"
    r"whereas|which|rather\s+than|instead\s+of|not)\b)"
)
# A clause that begins so stands on its own, whatever the one before it denies.
_RESUMES = re.compile(r"\s*(?:but|so|hence|thus|therefore|then)\b")
# Words beside which a choice is still nothing but a choice.
_DEGREE = re.compile(
    r"\b(?:an?|so|thus|hence|therefore|but|then|most|very|likely|probably|definitely|certainly|clear(?:ly)?|"
    r"strong(?:ly)?|slight(?:ly)?|moderate(?:ly)?|modest|weak|significant(?:ly)?|overall|simply|or|and)\b"
    r"|[^\w\s]"
)
# Before a choice in its sentence: it is denied, left open, or how things are without the knock-down.
_DENIED = re.compile(
    r"\b(?:no|not|none|nothing|neither|nor|never|hardly|than|instead|cannot|unlikely|implausible|doubt\w*|"
    r"whether|fail(?:s|ed)?|normally|usually|typically|otherwise|"
    r"(?:ca|do|does|did|has|have|is|are|was|were|wo|would|will|could|should|need|must)nt)\b"
)
# Right before a choice: what is lost or prevented is the opposite.
_LOST = re.compile(
    r"\b(?:(?:loss|lack|absence|relief|release)\s+(?:of|from)|without|less|reduced|impaired|"
    r"(?:prevent|block)(?:s|ed|ing)?|against)(?:\s+(?:an?|the|any|its|this))?\s*$"
)
_DENIED_AFTERWARDS = re.compile(
    r"\b(?:unlikely|implausible|improbable|cannot|excluded|ruled\s+out|doubtful|wrong|"
    r"(?:is|would\s+be|can)\s+not|(?:is|ca)nt)\b"
)
# A restated list of choices joins them so, with nothing else in between.
_JOINED = re.compile(r"(?:[\s/|,;'\"()\[\].]|\b(?:or|and)\b|\d{1,2}[.):]|\b[a-c][.):])*")


@dataclass(frozen=True)
class _Mention:
    """A word that stands for an outcome, and where it is."""

    outcome: Outcome
    start: int
    end: int


def choice_of(segment: str, task: str) -> Outcome | None:
    """The choice that a segment of plain text makes.

    A clause that is nothing but a choice settles it, wherever it stands. Without such a clause there has to
    be one word of choice in the whole segment, not denied in its clause: of two it cannot be told which is
    the cause and which the effect.

    Returns
    -------
    str or None
        ``unparsed`` where choices are named and none is made for sure; None where none is named, or they are
        only listed.
    """
    segment = _normal(segment)
    mentions = _mentions(segment, task)
    if not mentions or _is_list(segment, mentions):
        return None
    spans = _clauses(segment)
    bare = {found for span in spans if (found := _bare_choice(segment, span, mentions))}
    if bare:
        return bare.pop() if len(bare) == 1 else "unparsed"
    return _claimed(segment, mentions)


def line_choice(line: str, task: str) -> str | None:
    """The choice that a line consists of or begins with; "listed" where it holds several; None: no choice.

    "yes, because ..." and "no - the two ..." are lines of their choice, "no gene ..." is not.
    """
    line = _normal(line)
    for start, end in _clauses(line):
        if _OPTION[task].fullmatch(line[start:end].strip(" .:;,!")):
            return choice_of(line, task) or "listed"
        if _DEGREE.sub("", line[start:end]).strip():
            break
    return None


def _normal(text: str) -> str:
    """Without numbering, and without words that only look like a choice."""
    text = _NUMBERING.sub("", text.strip()).strip()
    return _NO_DOUBT.sub("certainly", _KNOCK_DOWN.sub("perturbation", text))


def _clauses(text: str) -> list[tuple[int, int]]:
    """Start and end of every clause."""
    ends = [match.span() for match in _CLAUSE_END.finditer(text)]
    starts = [0, *(after for _, after in ends)]
    return list(zip(starts, [*(before for before, _ in ends), len(text)], strict=True))


def _mentions(text: str, task: str) -> list[_Mention]:
    found = (_Mention(match.lastgroup, *match.span()) for match in _OPTION[task].finditer(text))
    return [mention for mention in found if not _is_prose(text, mention)]


def _is_prose(text: str, mention: _Mention) -> bool:
    """Whether the word means something else: the "no" of "no evidence", the "up" of "ends up with"."""
    word, rest = text[mention.start : mention.end], text[mention.end :]
    if word == "no":
        return _NO_OF_SOMETHING.match(rest) is not None
    return word in {"up", "down"} and mention.start > 0 and _GOES_ON.match(rest) is not None


def _is_list(text: str, mentions: Sequence[_Mention]) -> bool:
    """Whether the text only lists at least two of the choices one after the other."""
    if len({mention.outcome for mention in mentions}) < 2:
        return False
    gaps = [text[a.end : b.start] for a, b in itertools.pairwise(mentions)]
    return all(_JOINED.fullmatch(gap) for gap in gaps)


def _bare_choice(text: str, span: tuple[int, int], mentions: Sequence[_Mention]) -> Outcome | None:
    """The outcome of a clause that says nothing else; ``unparsed`` where its sentence has denied it."""
    start, end = span
    inside = [mention for mention in mentions if start <= mention.start and mention.end <= end]
    if len({mention.outcome for mention in inside}) != 1:
        return None
    rest = _without(text, inside, span)
    if _DEGREE.sub("", rest).strip():
        return None
    before = _without(text, mentions, (_sentence_start(text, start), start))
    denied = _DENIED.search(before) and not _RESUMES.match(rest)
    return "unparsed" if denied else inside[0].outcome


def _claimed(text: str, mentions: Sequence[_Mention]) -> Outcome:
    """The outcome that the only word of choice claims, unless it is denied."""
    first, last = mentions[0], mentions[-1]
    before = text[_sentence_start(text, first.start) : first.start]
    if _DENIED.search(before) or _LOST.search(before):
        return "unparsed"
    if first.outcome == "insufficient":
        # "insufficient evidence to say yes or no"
        both = {"yes", "no"} <= {mention.outcome for mention in mentions}
        apart = _CLAUSE_END.search(text, first.end, last.start) if last is not first else None
        return "insufficient" if both or not apart else "unparsed"
    after = _SENTENCE_END.split(text[first.end :])[0]
    return "unparsed" if len(mentions) > 1 or _DENIED_AFTERWARDS.search(after) else first.outcome


def _sentence_start(text: str, at: int) -> int:
    return max((match.end() for match in _SENTENCE_END.finditer(text, 0, at)), default=0)


def _without(text: str, mentions: Sequence[_Mention], span: tuple[int, int]) -> str:
    """A part of the text with its words of choice left out."""
    kept, at = [], span[0]
    for mention in mentions:
        if span[0] <= mention.start and mention.end <= span[1]:
            kept.append(text[at : mention.start])
            at = mention.end
    return " ".join([*kept, text[at : span[1]]])
