"""How many threads a computation may use, and back again afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

#: Thread counts and torch's random state belong to the whole process: one computation at a time sets them.
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Hold BLAS and OpenMP to ``threads`` threads inside the block.

    The last bits of a matrix product depend on how many threads share it, so what has to come out the
    same twice must run with the same number. A second block in this process waits for the first to end;
    what is to run side by side runs in processes of its own.
    """
    with _ONE_AT_A_TIME, threadpool_limits(limits=max(1, int(threads))):
        yield


@contextlib.contextmanager
def deterministic_torch(threads: int, *, seed: int, strict: bool = True) -> Iterator[None]:
    """Run torch with ``threads`` threads, a seed and repeatable algorithms; then put all back.

    ``strict=False`` leaves the choice of algorithms alone: some have no repeatable form on a GPU.
    """
    # A predictor without a network must not wait for torch's import.
    import torch

    with limited_threads(threads), torch.random.fork_rng():
        before_threads = torch.get_num_threads()
        before_strict = torch.are_deterministic_algorithms_enabled()
        before_warn = torch.is_deterministic_algorithms_warn_only_enabled()
        before_fill = torch.utils.deterministic.fill_uninitialized_memory
        torch.manual_seed(seed)
        torch.set_num_threads(max(1, int(threads)))
        if strict:
            torch.use_deterministic_algorithms(True)
            # Filling fresh memory finds programming errors, and costs a fifth of the training time.
            torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before_strict, warn_only=before_warn)
            torch.utils.deterministic.fill_uninitialized_memory = before_fill
            torch.set_num_threads(before_threads)
