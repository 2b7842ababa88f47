"""Prompt templates: the project's own or a user's, checked before use and named by their digest."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2

from storage.errors import InputError

FOLDER = Path(__file__).with_name("prompts")
#: One turn of a conversation: who speaks, and what.
Message = Mapping[str, str]

# A template is a program: it can fail in any of these ways.
_FAILURES = (
    *(jinja2.TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError),
    *(MemoryError, OSError, RuntimeError, TypeError, ValueError),
)
_SEEN = {"pert": "A", "gene": "B", "outcome": 1}
_BY_TASK = {
    "de": {"choices": ["yes", "no", "insufficient evidence"], "outcomes": ["no clear change", "changes"]},
    "dir": {
        "choices": ["increase", "decrease", "insufficient evidence"],
        "outcomes": ["decreases", "increases"],
    },
}
_AS_OF_TASK = (None,)
#: Every template with the kinds of values it will be given; it is tried on every combination of them.
TEMPLATES: Mapping[str, Mapping[str, tuple]] = {
    "answer_system": {
        "task": ("de", "dir"),
        "reasoning": (True, False),
        "observations": (True, False),
        "choices": _AS_OF_TASK,
    },
    "answer_question": {
        "task": ("de", "dir"),
        "cell_line": ("K562",),
        "pert": ("P",),
        "gene": ("G",),
        "measured": ("gene", "gene set"),
        "pert_text_kind": ("Summary",),
        "pert_text": ("text", ""),
        "gene_text_kind": ("Summary",),
        "gene_text": ("text", ""),
        "shared_observations": ([], [_SEEN]),
        "observations": ([], [("Title:", [_SEEN])]),
        "outcomes": _AS_OF_TASK,
    },
    "summary_system": {"role": ("pert", "gene"), "max_words": (120,)},
    "summary_entries": {"gene": ("G",), "entries": ([], ["entry"])},
    "summary_one_hop": {
        "role": ("pert", "gene"),
        "gene": ("G",),
        "own": ("text", ""),
        "related": ([], [("H", "text")]),
    },
    "gene_set_system": {"kind": ("pert", "gene")},
    "gene_set_question": {
        "n_genes": (1, 100),
        "members": ([{"name": "G", "text": "text"}], [{"name": "G", "text": ""}]),
        "text_kind": ("Summaries",),
    },
}


def trials(name: str) -> Iterator[dict[str, object]]:
    """Every combination of values that a template may be given."""
    kinds = TEMPLATES[name]
    for chosen in itertools.product(*kinds.values()):
        values = dict(zip(kinds, chosen, strict=True))
        told = _BY_TASK.get(str(values.get("task")), {})
        yield values | {name: value for name, value in told.items() if name in values}


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
            Listing every problem: no such folder, no template in it, unknown names, files that are no text,
            templates that do not parse or that fail with values they may be given.
        """
        own = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.jinja"))}
        given, problems = _given(Path(folder)) if folder is not None else ({}, [])
        prompts = cls(own | given)
        problems += [problem for name in given for problem in prompts._problems(name)]
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
        """What goes wrong with any values that a template may be given, each once."""
        found = (self._problem(name, values) for values in trials(name))
        return list(dict.fromkeys(problem for problem in found if problem))

    def _problem(self, name: str, values: Mapping[str, object]) -> str:
        try:
            self.fill(name, **values)
        except jinja2.TemplateSyntaxError as error:
            return f"{name}.jinja, line {error.lineno}: {error.message}"
        except jinja2.UndefinedError as error:
            return f"{name}.jinja: {error.message}; there are {', '.join(TEMPLATES[name])}"
        except _FAILURES as error:
            return f"{name}.jinja: {type(error).__name__}: {error}"
        return ""


def _given(folder: Path) -> tuple[dict[str, str], list[str]]:
    """The texts of a user's templates by name, and what is wrong with the files."""
    if not folder.is_dir():
        return {}, ["no such folder"]
    paths, given, problems = sorted(folder.glob("*.jinja")), {}, []
    unknown = [f"{path.name} is no template of these" for path in paths if path.stem not in TEMPLATES]
    if unknown or not paths:
        problems += [*unknown, *([] if paths else ["no *.jinja file in it"])]
        problems.append(f"the names are {', '.join(f'{name}.jinja' for name in TEMPLATES)}")
    for path in paths:
        try:
            given[path.stem] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path.name} cannot be read as UTF-8 text ({error})")
    return {name: text for name, text in given.items() if name in TEMPLATES}, problems
