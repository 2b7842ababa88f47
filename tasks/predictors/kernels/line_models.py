"""The fitted lines of one task: the predicted one, the others, and what these teach of the perturbations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from tasks.predictors.kernels.lines import Learnt, Line, LineKernels, Programmes
from tasks.predictors.protocol import OWN


@dataclass(frozen=True, eq=False)
class LineModels:
    """Lines of one task.

    Attributes
    ----------
    own
        The predicted line.
    others
        Other lines; none on the track within a line.
    programmes, learnt
        What the other lines teach, and the vectors of the predicted line's perturbations; None without
        other lines.
    """

    own: Line
    others: tuple[Line, ...]
    programmes: Programmes | None
    learnt: Learnt | None

    @classmethod
    def fit(
        cls,
        rows_by_line: Mapping[str, pd.DataFrame],
        kernels: LineKernels,
        *,
        gene_strength: float,
        step: Callable[[], None],
    ) -> Self:
        """Fit the other lines, then the predicted one with the similarity they teach."""
        others = []
        for name, rows in rows_by_line.items():
            if name != OWN:
                others.append(kernels.fit_line(name, rows, gene_strength=gene_strength))
                step()
        programmes = learnt = None
        if others:
            perts = np.unique(rows_by_line[OWN]["pert"].to_numpy(dtype=str))
            responses = kernels.responses(others, perts)
            programmes = Programmes.fit(responses)
            learnt = Learnt(perts, programmes.vectors(responses))
        own = kernels.fit_line(OWN, rows_by_line[OWN], gene_strength=gene_strength, learnt=learnt)
        step()
        return cls(own, tuple(others), programmes, learnt)

    def with_own(self, own: Line) -> Self:
        """The same with another fit of the predicted line, on a part of its rows."""
        return replace(self, own=own)

    def taught(self, kernels: LineKernels, perts: np.ndarray) -> Learnt | None:
        """What the other lines teach of ``perts`` and of the predicted line's own perturbations."""
        if self.programmes is None:
            return None
        new = np.setdiff1d(perts, self.learnt.perts)
        if not len(new):
            return self.learnt
        vectors = self.programmes.vectors(kernels.responses(self.others, new))
        return self.learnt.joined(Learnt(new, vectors))

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the arrays, their names starting with ``prefix``."""
        state = self.own.state(f"{prefix}_own") | {f"{prefix}_n_others": np.array(len(self.others))}
        for number, line in enumerate(self.others):
            state |= line.state(f"{prefix}_other{number}")
            state[f"{prefix}_basis{number}"] = self.programmes.bases[number]
        if self.learnt is not None:
            state[f"{prefix}_learnt_perts"] = self.learnt.perts
            state[f"{prefix}_learnt_vectors"] = self.learnt.vectors
        return state

    @classmethod
    def from_state(cls, prefix: str, state: Mapping[str, np.ndarray], kernels: LineKernels) -> Self:
        """Build the lines whose ``state`` lies in ``state``."""
        count = int(state[f"{prefix}_n_others"])
        own = Line.from_state(f"{prefix}_own", state, kernels.options)
        others = [Line.from_state(f"{prefix}_other{n}", state, kernels.options) for n in range(count)]
        if not others:
            return cls(own, (), None, None)
        programmes = Programmes(tuple(np.asarray(state[f"{prefix}_basis{n}"]) for n in range(count)))
        vectors = np.asarray(state[f"{prefix}_learnt_vectors"])
        learnt = Learnt(np.asarray(state[f"{prefix}_learnt_perts"]), vectors)
        return cls(own, tuple(others), programmes, learnt)
