"""From questions to a list of requests, from the ledger back to votes: nothing here asks a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.answers import AnswerLedger, read_rows, short_key
from storage.atomic import atomic_path
from tasks.summer.engines.protocol import Request, Sampling
from tasks.summer.questions import Questions, sample
from tasks.summer.tokens import TokenCounter
from tasks.summer.votes import parse_vote

_REQUESTS = pa.schema([("question", pa.int32()), ("vote", pa.int32()), ("key", pa.string())])
#: Requests written at once.
CHUNK = 4096


def write_requests(
    path: Path, questions: Questions, *, sampling: Sampling, counter: TokenCounter | None = None
) -> int:
    """List the key of every question and vote, in the order of asking; gives their number.

    The list is what a run has to account for, and tells what is missing without rendering a prompt.
    ``counter`` is shown every question once.
    """
    count, rows = 0, []
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, _REQUESTS) as writer:
        for question, request in questions.requests(sampling):
            if counter is not None and request.vote == 0:
                counter.add(request.messages)
            rows.append({"question": question, "vote": request.vote, "key": request.key})
            count += 1
            if len(rows) == CHUNK:
                writer.write_table(pa.Table.from_pylist(rows, schema=_REQUESTS))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema=_REQUESTS))
    return count


@dataclass(frozen=True, eq=False)
class Missing:
    """The listed requests that a ledger does not answer.

    Attributes
    ----------
    wanted
        bool [n_questions, n_votes]: whether an answer is missing.
    count
        Number of those; of requests that are the same, only one is wanted.
    """

    questions: Questions
    sampling: Sampling
    wanted: np.ndarray
    count: int

    def requests(self) -> Iterator[Request]:
        """The requests in the order of asking; only their questions are rendered."""
        return (request for _, request in self.questions.requests(self.sampling, self.wanted))


def missing_requests(
    path: Path,
    questions: Questions,
    *,
    sampling: Sampling,
    ledger: AnswerLedger,
    ask_again: tuple[str, ...],
) -> Missing:
    """Hold the list of requests against the ledger without rendering a prompt."""
    wanted = np.zeros((len(questions), sampling.votes), dtype=bool)
    keys: set[bytes] = set()
    for question, vote, key in _listed(path):
        short = short_key(key)
        if short not in keys and not ledger.is_done(key, ask_again=ask_again):
            keys.add(short)
            wanted[question, vote] = True
    return Missing(questions, sampling, wanted, len(keys))


@dataclass(frozen=True)
class Account:
    """What became of the listed requests, by key; a key that several questions share counts once.

    Attributes
    ----------
    requested, done, failed
        Different keys.
    missing
        Keys that were never asked.
    """

    requested: int
    done: int
    failed: int

    @property
    def missing(self) -> int:
        """Requests without any outcome."""
        return self.requested - self.done - self.failed

    def as_dict(self) -> dict[str, int]:
        """The four figures."""
        return {
            "requested": self.requested,
            "done": self.done,
            "failed": self.failed,
            "missing": self.missing,
        }


def account(path: Path, ledger: AnswerLedger) -> Account:
    """Hold the list of requests against the ledger."""
    keys: set[bytes] = set()
    done = failed = 0
    for _, _, key in _listed(path):
        short = short_key(key)
        if short in keys:
            continue
        keys.add(short)
        status = ledger.status(key)
        failed += status == "error"
        done += status is not None and status != "error"
    return Account(len(keys), done, failed)


def _listed(path: Path) -> Iterator[tuple[int, int, str]]:
    """Question, vote and key of every listed request."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(CHUNK):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def read_outcomes(path: Path, ledger: Path, *, pairs: pd.DataFrame, task: str) -> pd.DataFrame:
    """Parse the answers to the listed requests; no model is asked.

    Returns
    -------
    DataFrame
        One row a request: ``question``, ``pert``, ``gene``, ``vote``, ``key``, ``outcome`` (missing where
        there is no answer), ``status``, ``prompt_tokens``, ``output_tokens``, ``cached_tokens``, ``seconds``.
    """
    table = pq.read_table(path).to_pandas()
    outcomes: dict[str, tuple | None] = dict.fromkeys(table["key"])
    columns = ("key", "status", "text", "prompt_tokens", "output_tokens", "cached_tokens", "seconds")
    for key, status, text, *figures in read_rows(ledger, columns):
        if key in outcomes:
            outcome = None if status == "error" else parse_vote(text, task, cut_off=status == "length")
            outcomes[key] = (outcome, status, *figures)
    nothing = (None, None, -1, -1, -1, np.nan)
    names = ("outcome", "status", *columns[3:])
    read = pd.DataFrame([outcomes[key] or nothing for key in table["key"]], columns=list(names))
    asked = pairs.iloc[table["question"]].reset_index(drop=True)
    return pd.concat([table[["question"]], asked[["pert", "gene"]], table[["vote", "key"]], read], axis=1)


def outcomes_digest(outcomes: pd.DataFrame) -> str:
    """Digest over which request ended how: another answer, or one that came late, is another digest."""
    rows = outcomes[["key", "status", "output_tokens", "outcome"]].sort_values("key", kind="stable")
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def usage(outcomes: pd.DataFrame) -> dict[str, float]:
    """Tokens and time of the answers, each request once: what the run has cost whenever it was asked."""
    once = outcomes.drop_duplicates("key")
    answered = once[once["status"].notna()]
    figures = {name: _total(answered[name]) for name in ("prompt_tokens", "output_tokens", "cached_tokens")}
    shares = {
        f"status_{status}": float((answered["status"] == status).mean()) if len(answered) else 0.0
        for status in ("ok", "length", "empty", "error")
    }
    seconds = answered["seconds"].dropna()
    return (
        figures
        | shares
        | {
            "seconds_per_answer": float(seconds.mean()) if len(seconds) else 0.0,
            "different_requests": float(len(once)),
        }
    )


def sampled_questions(
    questions: Questions,
    outcomes: pd.DataFrame,
    ledger: Path,
    *,
    count: int,
    seed: int,
    truth: Mapping[tuple[str, str], int],
) -> pd.DataFrame:
    """A table of questions to be read: prompt, answers, votes and truth.

    Returns
    -------
    DataFrame
        ``pert``, ``gene``, ``prompt``, ``answer_1``, ``vote_1``, ..., ``truth`` (missing where not known).
    """
    chosen = sample(questions, count, seed)
    rows = outcomes[outcomes["question"].isin(chosen)]
    texts = _texts(ledger, set(rows["key"]))
    table = []
    for question, votes in rows.groupby("question"):
        pert, gene = votes["pert"].iat[0], votes["gene"].iat[0]
        turns = questions.messages(int(question))
        row = {"pert": pert, "gene": gene, "prompt": "\n\n".join(turn["content"] for turn in turns)}
        for vote in votes.sort_values("vote").itertuples():
            row[f"answer_{vote.vote + 1}"] = texts.get(vote.key, "")
            row[f"vote_{vote.vote + 1}"] = vote.outcome or "missing"
        table.append(row | {"truth": truth.get((pert, gene))})
    read = [f"{what}_{vote + 1}" for vote in sorted(rows["vote"].unique()) for what in ("answer", "vote")]
    columns = ["pert", "gene", "prompt", *read, "truth"]
    return pd.DataFrame(table, columns=columns).astype({"truth": "Int8"})


def _texts(ledger: Path, keys: set[str]) -> dict[str, str]:
    return {
        key: text or f"({error})" if error else text
        for key, text, error in read_rows(ledger, ("key", "text", "error"))
        if key in keys
    }


def _total(tokens: pd.Series) -> float:
    """Sum of what was counted; -1 stands for not counted."""
    return float(tokens[tokens > 0].sum())
