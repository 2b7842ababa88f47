"""What can be known of `pqa up`'s options in the first second, before anything is started."""

from __future__ import annotations

import difflib
import zoneinfo

from deployments.services import port_problems
from deployments.settings import ServiceSettings
from flows.dask_presets import cluster_maker, read_preset
from flows.up_options import UpOptions
from storage.errors import InputError
from storage.watched_files import WatchedFolder


def check_up(options: UpOptions, settings: ServiceSettings) -> None:
    """Look at folders, the Dask cluster, the time zone, ports and host.

    Raises
    ------
    InputError
        Listing everything that `pqa up` could not use.
    """
    problems = [
        *_data_problems(settings),
        *_watch_problems(settings),
        *_dask_problems(options),
        *_timezone_problems(options),
        *port_problems(options),
    ]
    if problems:
        raise InputError("options", problems)


def _data_problems(settings: ServiceSettings) -> list[str]:
    if settings.has_own_data or settings.data.is_dir():
        return []
    return [f"--data {settings.data}: no such folder; name the one that holds screens"]


def _watch_problems(settings: ServiceSettings) -> list[str]:
    if settings.has_own_inbox:
        return []
    try:
        watched = WatchedFolder(settings.watch)
    except InputError as error:
        return [f"--watch {settings.watch}: {problem}" for problem in error.problems]
    # A bucket is asked when it is looked into: that may take long, and need a key that comes later.
    if watched.is_local and not watched.is_there:
        return [f"--watch {settings.watch}: no such folder; name the one that new screens come into"]
    return []


def _dask_problems(options: UpOptions) -> list[str]:
    if options.dask is None or "://" in options.dask:
        return []
    try:
        preset = read_preset(options.dask)
        if preset.address is None:
            cluster_maker(preset)
    except InputError as error:
        return [f"{error.subject}: {problem}" for problem in error.problems]
    return []


def _timezone_problems(options: UpOptions) -> list[str]:
    known = zoneinfo.available_timezones() if options.timezone else set()
    if not options.timezone or options.timezone in known:
        return []
    near = difflib.get_close_matches(options.timezone, sorted(known), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "give one such as Europe/Berlin or UTC"
    return [f"--timezone {options.timezone}: no such time zone; {hint}"]
