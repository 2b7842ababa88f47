"""What is trained: predictors with their options and seeds, as a job asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from flows.options import PredictorOptions
from storage.errors import InputError
from tasks.predictors.registry import PREDICTORS, make_predictor

#: Grid of Wu et al. 2025 for the networks.
LAYERS, HIDDEN = (1, 2, 4, 8), (64, 128, 256)

Value = str | int | float | bool


@dataclass(frozen=True)
class Configuration:
    """One predictor with options of its own and a seed.

    Attributes
    ----------
    options
        The predictor's options by name.
    shown
        Those of them that tell this configuration from others of the same predictor.
    """

    predictor: str
    options: tuple[tuple[str, Value], ...] = ()
    shown: tuple[str, ...] = ()
    seed: int = 0

    @property
    def row(self) -> str:
        """Its row in the leaderboard, which all its seeds share."""
        told = [f"{name}={value}" for name, value in self.options if name in self.shown]
        return " ".join([self.predictor, *told])

    @cached_property
    def slug(self) -> str:
        """A name for files, one a seed."""
        told = [f"{name}{value}" for name, value in self.options if name in self.shown]
        return "-".join([self.predictor, *told, *([f"seed{self.seed}"] if self.seed else [])])


def configurations(options: PredictorOptions) -> list[Configuration]:
    """Every configuration that a job trains, in the order of its predictors.

    Raises
    ------
    InputError
        Listing every setting that does not fit.
    """
    settings = parsed_settings(options.settings)
    made = []
    for name in options.predictors:
        own = settings.get(name, {})
        grid = [{}]
        method = make_predictor(name, **own)
        if options.grid and method.is_sized:
            grid = [{"layers": layers, "hidden": hidden} for layers in LAYERS for hidden in HIDDEN]
        seeds = range(options.seed, options.seed + (options.seeds if method.seeded else 1))
        for cell in grid:
            chosen = tuple((own | cell).items())
            made += [Configuration(name, chosen, tuple(cell), seed) for seed in seeds]
    return made


def parsed_settings(lines: Sequence[str]) -> dict[str, dict[str, Value]]:
    """``predictor.option=value`` by predictor, tried on the predictors themselves."""
    settings, problems = {}, []
    for line in lines:
        place, equals, value = line.partition("=")
        predictor, dot, option = place.partition(".")
        if not (equals and dot and option):
            problems.append(f"--settings {line!r}: write predictor.option=value, as in gat.layers=4")
        elif predictor not in PREDICTORS:
            problems.append(
                f"--settings {line!r}: no predictor {predictor!r}; allowed: {', '.join(PREDICTORS)}"
            )
        else:
            settings.setdefault(predictor, {})[option] = _plain(value)
    for predictor, own in settings.items():
        try:
            make_predictor(predictor, **own)
        except InputError as error:
            problems += [f"--settings, {predictor}: {problem}" for problem in error.problems]
    if problems:
        raise InputError("predictors", problems)
    return settings


def _plain(text: str) -> Value:
    """A number or a truth value where the text is one (YAML would take 1e-4 for a word), else the text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
