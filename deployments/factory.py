"""One factory for all deployments: name, form, description, tags, schedule, and how many may run at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from prefect import Flow
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import EntrypointType, RunnerDeployment

from deployments import entries
from deployments.catalog import Catalog
from deployments.forms import form_of
from flows.up_options import UpOptions

#: Every deployment and every run of one has this tag, and one with the version.
TAG = "pqa"
NIGHTLY = "nightly"
WAIT, SKIP = ConcurrencyLimitStrategy.ENQUEUE, ConcurrencyLimitStrategy.CANCEL_NEW


@dataclass(frozen=True)
class DeploymentSpec:
    """What one deployment runs, says of itself, and how many runs of it there may be.

    Attributes
    ----------
    name
        What it is called in Prefect.
    flow
        One of `deployments.entries`.
    description
        Markdown for its page.
    concurrency_limit
        Runs of it at a time.
    collision_strategy
        Whether further ones wait or are cancelled.
    """

    name: str
    flow: Flow
    description: str
    concurrency_limit: int = 1
    collision_strategy: ConcurrencyLimitStrategy = WAIT


DEPLOYMENTS = (
    DeploymentSpec(
        "label a screen",
        entries.label_a_screen,
        "**From raw counts to labels.** Give a screen (Perturb-seq: CRISPR knock-downs or knock-outs read "
        "out by single-cell RNA-seq). You get, for every perturbation and gene: is it differentially "
        "expressed, up or down; a report on knock-down, guides and false discovery; and the tables.\n\n"
        "*Fill in:* the screen, the column of `obs` that names the knocked-down gene, and the name of the "
        "control cells. If a name is wrong, the run fails within seconds and lists those in the file.\n\n"
        "*Look:* tab Artifacts of the run (quality control, report).",
        concurrency_limit=2,
    ),
    DeploymentSpec(
        "benchmark",
        entries.benchmark_predictors,
        "**Which predictor knows best what an unseen knock-down does?** Labels a screen, or takes label "
        "tables, trains predictors on three quarters of the perturbations and scores them on the rest. With "
        "nothing filled in it runs on a simulated screen, in some minutes.\n\n"
        "*Look:* tab Artifacts of the run (leaderboard, report); compare runs in MLflow.",
    ),
    DeploymentSpec(
        "train predictors",
        entries.train_on_labels,
        "**Fit predictors to label tables** that are there already, published or made by *label a screen*, "
        "and score them on held-out perturbations. Models are kept in MLflow and can be loaded from there.",
    ),
    DeploymentSpec(
        "answer questions",
        entries.answer_with_a_model,
        "**Ask a language model** (SUMMER): does gene *g* change when *p* is knocked down, and which way? "
        "The model sees what is known of both genes and what near knock-downs did. Needs a model server or a "
        "GPU.",
    ),
    DeploymentSpec(
        "enrich gene sets",
        entries.name_gene_sets,
        "**Name clusters of genes**: by over-representation and, where a language model is given, by the "
        "model; both are compared with names given by hand.",
    ),
    DeploymentSpec(
        "new screens",
        entries.label_new_screens,
        "**Looks into the inbox every hour** and labels each new or changed screen there once. A file that "
        "is still being copied waits for the next look. `NAME.yaml` beside `NAME.h5ad` names its columns.",
        collision_strategy=SKIP,
    ),
)


@dataclass(frozen=True)
class ExistingDeployment:
    """What somebody may have changed in Prefect of a deployment that is registered there already.

    Attributes
    ----------
    schedules, paused
        Its schedules, and whether they are all paused.
    parameters
        Values that the form begins with.
    concurrency_limit
        Runs at a time; None for no limit.
    """

    schedules: Sequence[DeploymentScheduleCreate]
    paused: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)
    concurrency_limit: int | None = 1


def make_deployments(
    options: UpOptions, catalog: Catalog, existing: Mapping[str, ExistingDeployment]
) -> list[RunnerDeployment]:
    """All deployments, ready to be registered.

    Parameters
    ----------
    options
        The time zone, and whether and when the benchmark runs every night.
    catalog
        Names that the forms offer.
    existing
        Deployments that the server has already, by name: what somebody has changed there is kept, but for
        the night and the time zone where the options name one.
    """
    return [_make(spec, options, catalog, existing.get(spec.name)) for spec in DEPLOYMENTS]


def _make(
    spec: DeploymentSpec,
    options: UpOptions,
    catalog: Catalog,
    existing: ExistingDeployment | None,
) -> RunnerDeployment:
    release = version("perturbqa-flows")
    existing = existing or ExistingDeployment(
        schedules_of(spec.name, options), concurrency_limit=spec.concurrency_limit
    )
    limit = None
    if existing.concurrency_limit is not None:
        limit = ConcurrencyLimitConfig(
            limit=existing.concurrency_limit, collision_strategy=spec.collision_strategy
        )
    deployment = RunnerDeployment.from_flow(
        spec.flow,
        spec.name,
        description=spec.description,
        tags=[TAG, f"version-{release}"],
        version=release,
        concurrency_limit=limit,
        entrypoint_type=EntrypointType.MODULE_PATH,
        paused=existing.paused,
        parameters=dict(existing.parameters),
    )
    deployment.schedules = [_with_options(entry, options) for entry in existing.schedules]
    deployment._parameter_openapi_schema = form_of(spec.flow, catalog)
    return deployment


def schedules_of(name: str, options: UpOptions) -> list[DeploymentScheduleCreate]:
    """Schedules of a deployment: new screens every hour, the benchmark every night if that is asked for."""
    if name == "new screens":
        return [_cron("hourly", "7 * * * *", options.timezone, active=True)]
    if name == "benchmark":
        return [
            _cron(
                NIGHTLY,
                _daily_cron(options.nightly or "02:00"),
                options.timezone,
                active=bool(options.nightly),
            )
        ]
    return []


def _with_options(entry: DeploymentScheduleCreate, options: UpOptions) -> DeploymentScheduleCreate:
    """A schedule with the night and the time zone of the options, where they name one."""
    if not isinstance(entry.schedule, CronSchedule):
        return entry
    cron, timezone, active = entry.schedule.cron, entry.schedule.timezone, entry.active
    if entry.slug == NIGHTLY and options.nightly:
        cron, active = _daily_cron(options.nightly), True
    asked = CronSchedule(cron=cron, timezone=options.timezone or timezone)
    return entry.model_copy(update={"schedule": asked, "active": active})


def _cron(slug: str, cron: str, timezone: str | None, *, active: bool) -> DeploymentScheduleCreate:
    schedule = CronSchedule(cron=cron, timezone=timezone or "UTC")
    return DeploymentScheduleCreate(schedule=schedule, active=active, slug=slug)


def _daily_cron(time: str) -> str:
    """The cron expression of HH:MM every day."""
    hour, minute = time.split(":")
    return f"{int(minute)} {int(hour)} * * *"
