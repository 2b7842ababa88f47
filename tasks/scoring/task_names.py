"""The benchmark's two tasks: what they are called, and what each asks."""

from __future__ import annotations

#: The two questions asked of a pair, and what label 1 means.
TASK_TITLES = {"de": "differentially expressed or not", "dir": "up or down"}
#: The same, short enough for a heading.
TASK_HEADINGS = {"de": "DE or not", "dir": "Up or down"}
QUESTIONS = {
    "de": "Does the gene's expression change when the perturbed gene is knocked down?",
    "dir": "Given that the gene changes: does its expression go up?",
}
