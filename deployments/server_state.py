"""State on the Prefect server beside the deployments: limits, automations, states of earlier runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
)
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from deployments.entries import GPU_LIMIT
from deployments.factory import TAG, ExistingDeployment
from storage.errors import InputError

FAILURE_EVENTS = ("prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut")
AUTOMATION = "pqa: failures are told"
NOTIFY_BLOCK = "pqa-on-failure"
SLACK = re.compile(r"https://hooks\.slack(-gov)?\.com/services/\w+/\w+/\w+/?")
SUBJECT = "{{ flow_run.name }}: {{ flow_run.state.name }}"
BODY = "/runs/flow-run/{{ flow_run.id }}\n\n{{ flow_run.state.message }}"


def existing_deployments(client: SyncPrefectClient) -> dict[str, ExistingDeployment]:
    """What somebody may have changed in Prefect of the deployments that are registered, by name."""
    found = client.read_deployments(deployment_filter=DeploymentFilter(tags={"all_": [TAG]}))
    existing = {}
    for deployment in found:
        schedules = [
            DeploymentScheduleCreate(
                schedule=entry.schedule, active=entry.active, slug=entry.slug, parameters=entry.parameters
            )
            for entry in deployment.schedules
        ]
        limit = deployment.global_concurrency_limit
        existing[deployment.name] = ExistingDeployment(
            schedules, deployment.paused, deployment.parameters, None if limit is None else limit.limit
        )
    return existing


def release_leases(client: SyncPrefectClient, folder: Path) -> None:
    """Give back all slots of concurrency limits that are held by a lease.

    To be called when no run of ours is left (`mark_crashed`). A lease that stayed would expire minutes later
    and then free a slot that another run has taken meanwhile.

    Parameters
    ----------
    folder
        Where the server keeps its leases, one JSON file each; need not exist.
    """
    for path in folder.glob("*-*.json"):
        client.release_concurrency_slots_with_lease(UUID(path.stem))


def reset_gpu_limit(client: SyncPrefectClient) -> None:
    """Make the limit of one run on the GPU, unless it is there, with no slot taken.

    Another number set by hand is kept. To be called after `release_leases`: what is still counted then
    belongs to nobody.
    """
    try:
        client.read_global_concurrency_limit_by_name(GPU_LIMIT)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))
    free = GlobalConcurrencyLimitUpdate(active_slots=0)
    client.update_global_concurrency_limit(GPU_LIMIT, free)


def mark_crashed(client: SyncPrefectClient, why: str) -> int:
    """Mark all unfinished runs of our deployments as crashed.

    To be called when their processes are known to be gone: by whoever holds the workspace's lock, since no
    other program runs anything for these deployments.

    Parameters
    ----------
    why
        The message of their new state.

    Returns
    -------
    int
        Number of runs.
    """
    states = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    runs = _runs(client, {"state": {"type": {"any_": states}}})
    for run in runs:
        client.set_flow_run_state(run.id, Crashed(message=why), force=True)
    return len(runs)


def cancel_missed(client: SyncPrefectClient, now: datetime | None = None) -> int:
    """Cancel runs that a schedule had planned for a time before ``now``; gives their number."""
    before = {"before_": now or datetime.now(UTC)}
    planned = {"state": {"type": {"any_": [StateType.SCHEDULED]}}, "expected_start_time": before}
    runs = [run for run in _runs(client, planned) if run.auto_scheduled]
    for run in runs:
        why = "missed: `pqa up` was not running at that time"
        client.set_flow_run_state(run.id, Cancelled(message=why), force=True)
    return len(runs)


def _runs(client: SyncPrefectClient, wanted: dict) -> list[FlowRun]:
    """All runs of our deployments that match, page by page (they change state meanwhile, so ids first)."""
    runs: dict = {}
    while True:
        page = client.read_flow_runs(
            flow_run_filter=FlowRunFilter.model_validate(wanted),
            deployment_filter=DeploymentFilter(tags={"all_": [TAG]}),
            limit=200,
            offset=len(runs),
        )
        runs |= {run.id: run for run in page}
        if len(page) < 200:
            return list(runs.values())


def notify_of_failures(client: SyncPrefectClient, notify: str | None, pages: str) -> None:
    """Make or renew the automation that notifies of failed, crashed and timed out runs.

    Runs without heartbeats need no automation: `mark_crashed` finds them. With SQLite such a one, which keeps
    account of every event, also locks out this one now and then (Prefect 3.8): a failure goes unreported.

    Parameters
    ----------
    notify
        Address that is posted to, or name of a notification block; None: no automation.
    pages
        Address of Prefect's pages, for links to runs.

    Raises
    ------
    InputError
        If there is no notification block of this name.
    """
    response = client.request("POST", "/automations/filter", json={"limit": 200})
    for entry in response.json():
        if entry["name"] == AUTOMATION:
            client.delete_automation(entry["id"])
    if notify:
        client.create_automation(_failure_automation(_notification_block(notify), pages))


def _failure_automation(block: Block, pages: str) -> AutomationCore:
    return AutomationCore(
        name=AUTOMATION,
        description="Every failed or crashed run: its address and its first error.",
        trigger=EventTrigger(
            expect=set(FAILURE_EVENTS),
            match={"prefect.resource.id": "prefect.flow-run.*"},
            # Runs started from a form or by a schedule; flows below them would tell the same again.
            match_related={"prefect.resource.role": "deployment"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[
            SendNotification(
                block_document_id=block._block_document_id, subject=SUBJECT, body=f"{pages}{BODY}"
            )
        ],
    )


def _notification_block(notify: str) -> Block:
    """The block by name, or one made for an address: Slack's, or any other that takes a JSON post."""
    if not notify.startswith(("http://", "https://")):
        try:
            return Block.load(notify)
        except ValueError as error:
            message = (
                f"no such notification block ({error}); make it in Prefect under Blocks, or give an address"
            )
            raise InputError("--notify", [message]) from error
    if SLACK.fullmatch(notify):
        slack = SlackWebhook(url=notify)
        slack.save(NOTIFY_BLOCK, overwrite=True)
        return slack
    told = {"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"}
    block = CustomWebhookNotificationBlock(name="pqa", url=notify, json_data=told)
    block.save(NOTIFY_BLOCK, overwrite=True)
    return block
