"""``python -m tests.benchmarks.summer_tokens``: tokens of SUMMER's prompts with and without a prefix cache.

Renders every question of a published test set and counts it with a real BPE tokenizer given as a
``tokenizer.json`` (the chat template adds some ten tokens a prompt, which are not counted here).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

from flows.answer_options import AnswerOptions
from flows.answer_steps import material_of, retrieve_for
from flows.options import KnowledgeOptions
from tasks.predictors.fitting import test_pairs, training_rows
from tasks.summer.material import ordered_pairs
from tasks.summer.tokens import report_tokens


def main() -> None:
    """Print one JSON line for each way of laying the questions out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of a BPE tokenizer")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PQA_SHARED", "../shared/data")))
    parser.add_argument("--labels", default="k562-de")
    arguments = parser.parse_args()
    tokenize = _tokenizer(arguments.tokenizer)
    path = str(arguments.data / "labels" / f"{arguments.labels}.parquet")
    task = arguments.labels.rpartition("-")[2]
    pairs, training = ordered_pairs(test_pairs(path)), training_rows(path)
    for draw_for in ("question", "perturbation"):
        options = AnswerOptions(draw_for=draw_for)
        material = material_of(arguments.labels, arguments.data / "knowledge", options, KnowledgeOptions())
        _ = material.graph
        started = time.monotonic()
        retrieved = retrieve_for(pairs, training, material, options)
        seconds = {"retrieve_s": time.monotonic() - started}
        for variant in ("full", "no-reasoning", "no-retrieval"):
            questions = material.questions(task, variant, pairs=pairs, retrieved=retrieved)
            started = time.monotonic()
            prompts = [questions.messages(number) for number in range(len(questions))]
            seconds["render_s"] = time.monotonic() - started
            shuffled = np.random.default_rng(0).permutation(len(prompts))
            for order, chosen in (("by perturbation", prompts), ("shuffled", [prompts[i] for i in shuffled])):
                if order == "shuffled" and (draw_for, variant) != ("question", "full"):
                    continue
                report = report_tokens(chosen, tokenize, votes=3)
                line = {"variant": variant, "draw_for": draw_for, "order": order} | report.as_dict() | seconds
                line["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in line.items()}
                print(json.dumps(shown), flush=True)


def _tokenizer(path: Path):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))

    def tokenize(conversations):
        texts = ["\n\n".join(turn["content"] for turn in turns) for turns in conversations]
        return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    return tokenize


if __name__ == "__main__":
    main()
