"""Questions as requests, one after the other in an order in which neighbours begin alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from tasks.summer.engines.protocol import Request, Sampling
from tasks.summer.gene_texts import GeneTexts
from tasks.summer.retrieval import Retrieved, blocks_of_perturbations
from tasks.summer.templates import Message, Prompts

Variant = Literal["full", "no-reasoning", "no-retrieval"]
VARIANTS: dict[Variant, str] = {
    "full": "summaries, observations and reasoning",
    "no-reasoning": "observations, the choice alone without a chain of thought",
    "no-retrieval": "reasoning without observations",
}
#: The three closing choices of each task, as a model is asked to write them.
CHOICES = {
    "de": ("yes", "no", "insufficient evidence"),
    "dir": ("increase", "decrease", "insufficient evidence"),
}
#: What an observed label is called, 0 and 1.
OUTCOME_WORDS = {"de": ("no clear change", "changes"), "dir": ("decreases", "increases")}
#: The published screens' lines in a sentence.
CELL_LINES = {
    "k562": "K562, an erythroid line from a chronic myeloid leukaemia; TP53 is lost and BCR-ABL1 drives it.",
    "rpe1": "RPE1, near-diploid epithelial cells of the retina, immortalised with telomerase; TP53 works.",
    "hepg2": "HepG2, a line from a liver cancer that keeps many functions of hepatocytes; TP53 works.",
    "jurkat": "Jurkat, a T cell line from an acute leukaemia; TP53 and PTEN are lost.",
}
#: Questions of one perturbation rendered at a time.
BLOCK = 256


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of one task and variant.

    Attributes
    ----------
    task, variant
        ``de`` or ``dir``; one of `VARIANTS`.
    pairs
        ``pert`` and ``gene``, sorted by perturbation and then gene: the order of asking.
    retrieved
        Their observations, in the same order; not looked at by the variant without retrieval.
    cell_line
        A sentence about it.
    """

    task: str
    variant: Variant
    pairs: pd.DataFrame
    retrieved: Retrieved
    texts: GeneTexts
    prompts: Prompts
    cell_line: str

    def __len__(self) -> int:
        return len(self.pairs)

    def messages(self, question: int) -> tuple[Message, ...]:
        """The conversation that asks one question."""
        pert, gene = self.pairs["pert"].iat[question], self.pairs["gene"].iat[question]
        shows = self.variant != "no-retrieval"
        text = self.prompts.fill(
            "answer_question",
            task=self.task,
            cell_line=self.cell_line,
            pert=pert,
            gene=gene,
            measured=self.texts.measured(gene),
            pert_text_kind=self.texts.title,
            pert_text=self.texts.text("pert", pert),
            gene_text_kind=self.texts.title,
            gene_text=self.texts.text("gene", gene),
            shared_observations=self.retrieved.of_perturbation(question) if shows else [],
            observations=self.retrieved.groups(question, pert, gene) if shows else [],
            outcomes=OUTCOME_WORDS[self.task],
        )
        return self.prompts.conversation(self._system, text)

    @cached_property
    def _system(self) -> str:
        return self.prompts.fill(
            "answer_system",
            task=self.task,
            reasoning=self.variant != "no-reasoning",
            observations=self.variant != "no-retrieval",
            choices=CHOICES[self.task],
        )

    def requests(self, sampling: Sampling, wanted: np.ndarray | None = None) -> Iterator[tuple[int, Request]]:
        """Position and request of questions and votes, one perturbation after the other.

        All questions of a perturbation are asked once before any is asked again: by then the engine has
        computed the beginning that the votes share, which it had not if they came side by side.

        Parameters
        ----------
        wanted
            bool [n_questions, n_votes]: which to give; a question without any is not rendered. None: all.
        """
        for block in blocks_of_perturbations(self.pairs["pert"].to_numpy(), BLOCK):
            asked = {
                question: sampling.requests(self.messages(question))
                for question in block
                if wanted is None or wanted[question].any()
            }
            for vote in range(sampling.votes):
                for question, requests in asked.items():
                    if wanted is None or wanted[question, vote]:
                        yield question, requests[vote]


def sample(questions: Questions, count: int, seed: int) -> np.ndarray:
    """Positions of ``count`` questions to be looked at, drawn without replacement, sorted."""
    rng = np.random.default_rng([seed, len(questions)])
    return np.sort(rng.choice(len(questions), size=min(count, len(questions)), replace=False))


def cell_line_sentence(data_set: str, given: str) -> str:
    """The sentence about a data set's cell line: as given, or as known of the published screens."""
    if given:
        return given
    known = [line for name, line in CELL_LINES.items() if data_set.lower().startswith(name)]
    return known[0] if known else "not stated."
