"""Engines: where shards are made. Each takes tasks and tells which shards are done, in whatever order that happens.

What is made does not depend on the engine, nor on the number of workers: a shard is a function of its plans alone.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from multiprocessing import connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from convirt.data.imaging.sandbox import deadline, sandboxed
from convirt.data.preparing.pairs import PairPlan, ShardJob, make_shard
from convirt.errors import InputError

_SECONDS = 60  # that an image may take
_AHEAD = 2  # tasks that wait beside those at work; their plans and texts are all that waits in memory


@dataclass(frozen=True, kw_only=True)
class Task:
    """One shard to be made."""

    number: int
    """Its place in the corpus."""
    plans: Sequence[PairPlan]
    """Its pairs."""
    shard: Path
    """The file to write."""
    piece: Path
    """The file that says that it is finished."""


Engine = Callable[[ShardJob, Iterable[Task], int | None], Iterator[Task]]
"""Takes the job, the tasks, and how many workers there may be (None: as many as there are processors)."""


def run_here(job: ShardJob, tasks: Iterable[Task], workers: int | None) -> Iterator[Task]:
    """Make the shards in this process, one after the other; a file that kills its decoder kills a child only."""
    with sandboxed():
        for task in tasks:
            make_shard(job, task.plans, task.shard, task.piece)
            yield task


def run_local(job: ShardJob, tasks: Iterable[Task], workers: int | None) -> Iterator[Task]:
    """Make the shards in processes of this machine, which end with this one even if it is killed.

    A process may die of a file that kills its decoder, or keeps it busy for ever: what it was at is then made again
    with decoders in processes of their own.

    Raises:
        InputError: Processes are killed by something else; what is finished stays.
    """
    queue = iter(tasks)
    lost: deque[Task] = deque()
    with_care: set[int] = set()
    while True:
        waiting: dict[Future[None], Task] = {}
        try:
            yield from _run_pool(job, queue, lost, workers or os.cpu_count() or 1, waiting)
            return
        except BrokenProcessPool as error:
            if all(task.number in with_care for task in waiting.values()):
                raise InputError(
                    "a worker process was killed, perhaps for memory; what is finished is kept: give the same command "
                    "again, perhaps with fewer --workers"
                ) from error
            lost.extendleft(waiting.values())
            with_care.update(task.number for task in waiting.values())


def _run_pool(
    job: ShardJob, queue: Iterator[Task], lost: deque[Task], workers: int, waiting: dict[Future[None], Task]
) -> Iterator[Task]:
    """Run one pool of processes to the end of the queue, first what another pool has lost, with care."""
    # Spawned, not forked: this process may hold threads (torch, Arrow), which a fork copies in any state.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(stop,))

    def submit(task: Task, with_care: bool) -> None:
        try:
            waiting[pool.submit(_work, job, task, with_care)] = task
        except BrokenProcessPool:
            waiting[Future()] = task  # nothing will come of it, but it must not vanish
            raise

    try:
        while True:
            while lost and len(waiting) < workers + _AHEAD:
                submit(lost.popleft(), True)
            for task in islice(queue, max(0, workers + _AHEAD - len(waiting))):
                submit(task, False)
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                yield waiting.pop(future)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_stop: Event | None = None


def _start_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    # Ctrl-C reaches every process of the terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Nobody tells the workers of a killed process to stop: each holds the queue that it waits for open."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _work(job: ShardJob, task: Task, with_care: bool) -> None:
    assert _stop is not None
    with sandboxed() if with_care else nullcontext():
        make_shard(job, task.plans, task.shard, task.piece, _stop.is_set, None if with_care else _limit)


def _limit(plan: PairPlan) -> AbstractContextManager[None]:
    return deadline(_SECONDS * (1 + len(plan.rows)))


def run_ray(job: ShardJob, tasks: Iterable[Task], workers: int | None) -> Iterator[Task]:
    """Make the shards on a Ray cluster: the one that runs already or that RAY_ADDRESS names, else one of this machine.

    Images and corpus lie on storage that every machine of it shares. Ray makes a shard again whose machine was lost.

    Raises:
        InputError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray: pip install 'convirt[ray]', or leave --engine out") from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, workers)
    workers = workers or int(ray.cluster_resources().get("CPU", 1))
    shared = ray.put(job)
    remote = ray.remote(num_cpus=1, max_retries=3)(_work_remotely)
    queue = iter(tasks)
    waiting: dict[Any, Task] = {}
    try:
        while True:
            for task in islice(queue, workers + _AHEAD - len(waiting)):
                waiting[remote.remote(shared, task)] = task
            if not waiting:
                return
            done, _ = ray.wait(list(waiting), num_returns=1)
            for reference in done:
                ray.get(reference)
                yield waiting.pop(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # its own text is the traceback of another machine
    except ray.exceptions.RayError as error:
        raise InputError(
            f"the Ray cluster gave up ({type(error).__name__}); what is finished is kept: give the same command again"
        ) from error
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        if ours:
            ray.shutdown()


def _connect(ray: Any, workers: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    # A cluster of this machine gets its size; one that exists has its own.
    size: dict[str, Any] = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
    try:
        ray.init(**size, log_to_driver=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster at {address or 'this machine'} ({str(error).splitlines()[0][:200]}); check RAY_ADDRESS"
        ) from error


def _work_remotely(job: ShardJob, task: Task) -> None:
    with sandboxed():
        make_shard(job, task.plans, task.shard, task.piece)


ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}
