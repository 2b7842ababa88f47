"""Logistic regression on what is written of the two genes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import BeforeValidator, Field

from storage.embeddings import model_digest
from storage.errors import InputError
from storage.manifest import file_digest
from tasks.knowledge.read import TEXT_TABLE
from tasks.knowledge.symbols import SymbolIndex
from tasks.predictors.arrays import options_from_state, options_state, symbols_from_state
from tasks.predictors.options import Options, Value
from tasks.predictors.protocol import TASKS, Context, Predictor, checked_tables, checked_task
from tasks.predictors.texts.embeddings import (
    DEFAULT_MODEL,
    TFIDF,
    find_model,
    gene_descriptions,
    model_vectors,
    tfidf_vectors,
)
from tasks.predictors.texts.pair_regression import PairRegression
from tasks.predictors.threads import limited_threads

log = logging.getLogger(__name__)


# A folder may be given as a path, and a name of digits comes as a number.
Name = Annotated[str, BeforeValidator(str)]


class GenePTOptions(Options):
    """Options of the texts' vectors and of the regression."""

    embedding_model: Name = Field(
        DEFAULT_MODEL,
        min_length=1,
        description="Folder of a sentence-transformers model, or its name (see `find_model`), or tfidf: "
        "tf-idf of words and a truncated SVD, which needs no model.",
    )
    product: bool = Field(
        True,
        description="Whether the element-wise product of the two vectors is a feature beside the vectors "
        "themselves. Without it the perturbations' order is the same for every gene.",
    )
    strength: float = Field(
        1e-4, gt=0, description="Inverse of the penalty on the weights, scikit-learn's ``C``."
    )
    n_factors: int = Field(256, gt=0, description="Length of the vectors of tfidf.")
    cache: Name = Field(
        "~/.cache/perturbqa-flows/embeddings",
        min_length=1,
        description="Folder where a model's vectors are kept by model and text; they are embedded once.",
    )


class GenePTPredictor(Predictor):
    """Text embeddings of gene descriptions and logistic regression on pairs (Chen and Zou 2024).

    A gene's text is its full name, its HGNC gene groups and its RefSeq summary: the "Gene" variant of
    Wu et al. 2025. Their "Prot" variant needs UniProt's texts of function, which the knowledge at hand lacks.
    Every gene of the graph is embedded; genes without a text, and names unknown to the graph, get the mean
    vector. A gene set is the mean of its members. Rows of other lines are learnt from like the line's own.

    Parameters
    ----------
    **options
        Fields of ``GenePTOptions``.

    Attributes
    ----------
    counts
        After ``fit``: the graph's ``genes``, those ``without_summary`` (known by name and groups only), those
        ``without_text``, and names in training rows that are ``unknown`` to the graph.
    """

    name: ClassVar[str] = "genept"
    title: ClassVar[str] = "text embeddings of gene descriptions and logistic regression"
    options_type: ClassVar[type[GenePTOptions]] = GenePTOptions

    def __init__(self, /, **options: Value):
        super().__init__(**options)
        self._threads = 1
        self._symbols: SymbolIndex | None = None
        self._sets = np.empty(0, dtype="<U1")
        self._vectors = np.empty((0, 0), dtype=np.float32)
        self._models: dict[str, PairRegression] = {}

    def fit(self, tables: Mapping[str, pd.DataFrame], context: Context) -> Self:
        """Embed the graph's genes and fit a regression for every task."""
        tables = checked_tables(tables)
        self._symbols, self._threads = context.knowledge.symbols, context.threads
        self._sets = np.array(sorted(context.sets), dtype=str) if context.sets else np.empty(0, dtype="<U1")
        self._vectors = self._embed(context)
        names = pd.unique(pd.concat([t[column] for t in tables.values() for column in ("pert", "gene")]))
        self.counts["unknown"] = int((self._positions(names) == len(self._vectors) - 1).sum())
        log.info("genept: %s", ", ".join(f"{count} {what}" for what, count in self.counts.items()))
        with limited_threads(self._threads):
            for task, table in tables.items():
                vectors, rows = self._features(table)
                label = table["label"].to_numpy(np.float64)
                self._models[task] = PairRegression.fit(
                    vectors, rows, label, product=self.options.product, strength=self.options.strength
                )
                context.progress("tables", len(self._models), len(tables))
        return self

    def predict(self, task: str, pairs: pd.DataFrame) -> np.ndarray:
        """Score each pair with its log odds."""
        checked_task(task, tuple(self._models))
        vectors, rows = self._features(pairs)
        with limited_threads(self._threads):
            return self._models[task].logits(vectors, rows)

    def further_inputs(self, knowledge: Path) -> dict[str, str]:
        """Digests of the genes' texts and of the model that embeds them."""
        digests, texts = {}, knowledge / TEXT_TABLE
        if texts.is_file():
            digests["gene texts"] = file_digest(texts)
        if self.options.embedding_model != TFIDF:
            digests["text model"] = model_digest(find_model(self.options.embedding_model, knowledge))
        return digests

    def state(self) -> dict[str, np.ndarray]:
        """Return the options, every gene's vector and the regressions' weights."""
        state = options_state(self.parameters()) | self._symbols.state()
        state |= {"sets": self._sets, "vectors": self._vectors, "threads": np.array(self._threads)}
        for task, model in self._models.items():
            state |= model.state(task)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Build the fitted predictor from its arrays."""
        predictor = cls(**options_from_state(state))
        predictor._symbols, predictor._threads = symbols_from_state(state), int(state["threads"])
        predictor._sets, predictor._vectors = np.asarray(state["sets"]), np.asarray(state["vectors"])
        predictor._models = {
            task: PairRegression.from_state(task, state) for task in TASKS if f"{task}_intercept" in state
        }
        return predictor

    def _embed(self, context: Context) -> np.ndarray:
        """Vectors of genes, then of sets, then the mean of those with a text, float32 (n, n_dimensions)."""
        genes = context.knowledge.genes
        texts, n_summaries = gene_descriptions(context.folder, genes)
        has_text = np.array([bool(text) for text in texts])
        is_gene = ~np.isin(genes, self._sets)
        self.counts = {
            "genes": int(is_gene.sum()),
            "without_summary": int(is_gene.sum()) - n_summaries,
            "without_text": int((is_gene & ~has_text).sum()),
        }
        if not has_text.any():
            raise InputError(str(context.folder), ["no gene of the graph has a text"])
        known = self._text_vectors([text for text in texts if text], context)
        mean = known.mean(axis=0, dtype=np.float64).astype(np.float32)
        vectors = np.repeat(mean[None], len(genes), axis=0)
        vectors[has_text] = known
        rows = [vectors]
        for name in self._sets.tolist():
            members = context.knowledge.resolve(context.sets[name])
            members = members[members >= 0]
            rows.append(vectors[members].mean(axis=0, keepdims=True) if len(members) else mean[None])
        return np.concatenate([*rows, mean[None]])

    def _text_vectors(self, texts: list[str], context: Context) -> np.ndarray:
        if self.options.embedding_model == TFIDF:
            # One thread: the last bits of a product must not depend on how many there are.
            with limited_threads(1):
                return tfidf_vectors(texts, n_factors=self.options.n_factors)
        model: Path = find_model(self.options.embedding_model, context.folder)
        return model_vectors(
            texts, model, cache=self.options.cache, threads=context.threads, progress=context.progress
        )

    def _features(
        self, pairs: pd.DataFrame
    ) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Vectors of the different perturbations and genes, and which of them each pair is about."""
        vectors, rows = [], []
        for column in ("pert", "gene"):
            names, row = np.unique(pairs[column].to_numpy(dtype=str), return_inverse=True)
            vectors.append(self._vectors[self._positions(names)])
            rows.append(row)
        return tuple(vectors), tuple(rows)

    def _positions(self, names: np.ndarray) -> np.ndarray:
        """Row of ``_vectors`` of each name; names that are neither set nor gene get the last one."""
        n_genes, last = len(self._symbols.genes), len(self._vectors) - 1
        sets = {name: n_genes + number for number, name in enumerate(self._sets.tolist())}
        genes = self._symbols.resolve(names)
        genes = np.where(genes >= 0, genes, last)
        return np.array(
            [sets.get(str(name), gene) for name, gene in zip(names, genes, strict=True)], dtype=np.int64
        )
