"""What is left of a model's reply without hidden reasoning, and without markup."""

from __future__ import annotations

import re
import unicodedata

_THINK = r"[<\[]think(?:ing)?[>\]]"
_THINK_END = r"[<\[]/think(?:ing)?[>\]]"
_THOUGHT = re.compile(rf"{_THINK}.*?{_THINK_END}", re.DOTALL | re.IGNORECASE)
# The chat template has put the opening tag in the prompt: all up to the closing one is thought.
_THOUGHT_TO_END_TAG = re.compile(rf"\A.*{_THINK_END}", re.DOTALL | re.IGNORECASE)
_OPEN_THOUGHT = re.compile(rf"{_THINK}.*\Z", re.DOTALL | re.IGNORECASE)
# Channels as gpt-oss writes them: analysis and commentary are thought, final is the reply.
_TO_FINAL_CHANNEL = re.compile(r"\A.*<\|channel\|>\s*final\b[^\n]*?<\|message\|>", re.DOTALL | re.IGNORECASE)
_OPEN_CHANNEL = re.compile(r"<\|channel\|>.*\Z", re.DOTALL | re.IGNORECASE)
_SPECIAL_TOKEN = re.compile(r"<\|[a-z_]+\|>", re.IGNORECASE)

_BOX = re.compile(r"\\boxed\s*\{(?:\\\w+\s*\{)?([^{}]*)\}+")
_ANSWER_TAG = re.compile(r"<\s*(?:final[\s-]?)?(?:answer|choice)\s*>")
_ANSWER_END = re.compile(r"</\s*(?:final[\s-]?)?(?:answer|choice)\s*>|<(?:br|p)\s*/?>")
_FONT_TAG = re.compile(r"</?(?:b|i|u|em|strong|code|p)>")


def without_reasoning(text: str) -> str:
    """Keep of a reply what its reader is meant to see.

    Left out are thoughts between ``<think>`` and ``</think>``, all before a ``</think>`` that nothing opens,
    all before the last ``final`` channel, and a thought that was cut off. Empty where nothing else was said.
    """
    text = _TO_FINAL_CHANNEL.sub("", text)
    text = _THOUGHT_TO_END_TAG.sub("", _THOUGHT.sub(" ", text))
    text = _OPEN_CHANNEL.sub(" ", _OPEN_THOUGHT.sub(" ", text))
    return _SPECIAL_TOKEN.sub(" ", text).strip()


def plain(text: str) -> str:
    """Lower case without hidden reasoning, markup and typographic variety.

    What stands in a box or in a tag of that name is announced as the final answer.
    """
    text = without_reasoning(unicodedata.normalize("NFKC", text)).casefold()
    text = _BOX.sub(r"\nfinal answer: \1\n", text)
    text = re.sub(r"\\(?:text|textbf|mathrm)\s*", " ", text).replace("_", " ")
    text = _ANSWER_END.sub("\n", _ANSWER_TAG.sub("\nfinal answer: ", text))
    text = re.sub(r"[*`\"“”‘’'{}$]", "", _FONT_TAG.sub("", text))
    text = "\n".join(re.sub(r"[ \t\f\v\r]+", " ", line).strip() for line in text.split("\n"))
    return re.sub(r"\n{2,}", "\n\n", text).strip("\n")
