"""Prompt templates: the project's own or a user's, checked before use and named by their digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2

from storage.errors import InputError

FOLDER = Path(__file__).with_name("prompts")
#: One turn of a conversation: who speaks, and what.
Message = Mapping[str, str]

_SEEN = {"pert": "A", "gene": "B", "outcome": 1}
_QUESTION = {
    "task": "de",
    "cell_line": "K562",
    "pert": "P",
    "gene": "G",
    "measured": "gene",
    "pert_text_kind": "Summary",
    "pert_text": "text",
    "gene_text_kind": "Summary",
    "gene_text": "text",
    "shared_observations": [_SEEN],
    "observations": [("Title:", [_SEEN])],
    "outcomes": ["no", "yes"],
}
#: Every template with values such as it will be given, to try it on.
TEMPLATES: Mapping[str, Mapping[str, object]] = {
    "answer_system": {
        "task": "de",
        "reasoning": True,
        "observations": True,
        "choices": ["yes", "no", "insufficient evidence"],
    },
    "answer_question": _QUESTION,
    "summary_system": {"role": "pert", "max_words": 120},
    "summary_entries": {"gene": "G", "entries": ["entry"]},
    "summary_one_hop": {"role": "pert", "gene": "G", "own": "text", "related": [("H", "text")]},
    "gene_set_system": {"kind": "pert"},
    "gene_set_question": {"members": [{"name": "G", "text": "text"}], "text_kind": "Summaries"},
}


@dataclass(frozen=True, eq=False)
class Prompts:
    """All templates, ready to be filled in.

    Attributes
    ----------
    sources
        Template name to its text.
    """

    sources: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path | str | None = None) -> Prompts:
        """Read the templates; those a user's ``folder`` holds come in place of the project's own.

        Raises
        ------
        InputError
            Listing every problem: no such folder, no template in it, unknown names, templates that do not
            parse or that use a variable there is not.
        """
        own = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.jinja"))}
        given = _given(Path(folder)) if folder is not None else {}
        prompts = cls(own | given)
        problems = [problem for name in given for problem in prompts._problems(name)]
        if problems:
            raise InputError(f"prompt templates in {folder}", problems)
        return prompts

    @property
    def digest(self) -> str:
        """SHA-256 over names and texts of all templates: the version of the prompts."""
        return hashlib.sha256(json.dumps(dict(self.sources), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _environment(self) -> jinja2.Environment:
        return jinja2.Environment(
            loader=jinja2.DictLoader(dict(self.sources)), undefined=jinja2.StrictUndefined, autoescape=False
        )

    def fill(self, name: str, **values: object) -> str:
        """Fill in one template; runs of blank lines become one."""
        text = self._environment.get_template(name).render(**values)
        return re.sub(r"\n{3,}", "\n\n", text).strip()

    def conversation(self, system: str, question: str) -> tuple[Message, ...]:
        """The two turns that are sent to a model."""
        return ({"role": "system", "content": system}, {"role": "user", "content": question})

    def _problems(self, name: str) -> list[str]:
        try:
            self.fill(name, **TEMPLATES[name])
        except jinja2.TemplateSyntaxError as error:
            return [f"{name}.jinja, line {error.lineno}: {error.message}"]
        except jinja2.UndefinedError as error:
            return [f"{name}.jinja: {error.message}; there are {', '.join(TEMPLATES[name])}"]
        return []


def _given(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise InputError(f"prompt templates in {folder}", ["no such folder"])
    given = {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja"))}
    problems = [f"{name}.jinja is no template of these" for name in given if name not in TEMPLATES]
    if problems or not given:
        known = f"the names are {', '.join(f'{name}.jinja' for name in TEMPLATES)}"
        problems = [*problems, "no *.jinja file in it"] if not given else problems
        raise InputError(f"prompt templates in {folder}", [*problems, known])
    return given
