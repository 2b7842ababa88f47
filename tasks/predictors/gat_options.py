"""Options of the graph attention network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from storage.errors import InputError


@dataclass(frozen=True)
class GATOptions:
    """Options of the network and its training.

    Attributes
    ----------
    hidden, layers
        Units and attention layers.
    start
        What the embeddings start from: ``graph`` = leading singular vectors of the gene-term and
        gene-gene links, ``random`` = normal noise as in Wu et al. 2025.
    max_links
        Partners, and terms, a gene hears from at most.
    max_epochs, min_epochs, patience
        Training ends when validation has not bettered for ``patience`` epochs, not before ``min_epochs``.
    batch_size
        Pairs a step of the head.
    batches_per_encoding
        The graph is encoded once for so many batches: the head steps at each, the encoder at the last with
        the sum of their gradients.
    learning_rate
        Of AdamW.
    device
        ``cpu``, ``cuda``, or ``auto`` = cuda where there is one.
    """

    hidden: int = 128
    layers: int = 2
    start: Literal["graph", "random"] = "graph"
    max_links: int = 12
    max_epochs: int = 60
    min_epochs: int = 20
    patience: int = 5
    batch_size: int = 5000
    batches_per_encoding: int = 6
    learning_rate: float = 5e-4
    device: Literal["cpu", "cuda", "auto"] = "cpu"

    @classmethod
    def checked(cls, options: Mapping[str, str | int | float]) -> GATOptions:
        """Build the options; an InputError lists every unknown name and value out of range."""
        allowed = asdict(cls())
        unknown = sorted(set(options) - set(allowed))
        problems = [f"no option {name!r}; allowed are {', '.join(allowed)}" for name in unknown]
        for name, value in options.items():
            if name in allowed and not isinstance(allowed[name], str) and not value > 0:
                problems.append(f"{name} must be greater than 0; found {value}")
        for name, words in (("start", ("graph", "random")), ("device", ("cpu", "cuda", "auto"))):
            if options.get(name, words[0]) not in words:
                problems.append(f"{name} must be one of {', '.join(words)}; found {options[name]!r}")
        if problems:
            raise InputError("gat", problems)
        return cls(**options)

    def as_dict(self) -> dict[str, str | int | float]:
        """Return the options by name."""
        return asdict(self)
