"""Workers as actors of a Ray cluster, and the broker as one more: `[engine] kind = "ray"`; ranges finished as its tasks.

The broker's actor costs no processor of the cluster's account and lives beside the driver, whose end is the run's
anyway; each worker's costs one. A worker is the very body that a process of `--workers` runs; only the carrier of its
questions differs. `address` names a cluster ("auto": the one that this machine belongs to); without it a cluster of
this machine alone is started and ended with the run, its dashboard and usage reports off. On each of a cluster's
machines batchrun must be installed, the dataset be found under the same path or address, and the run's folder too unless
it is a bucket: `survey` sees to it before a call is made. A worker's order, which may hold the credential, travels as
an argument between the cluster's processes, as safe as the cluster's own connections are, and is written nowhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from batchrun import __version__
from batchrun.engine.distributed.broker import Broker
from batchrun.engine.distributed.messages import (
    Answer,
    Look,
    Lost,
    Question,
    Stop,
    View,
    decode_answer,
    decode_question,
    encode,
)
from batchrun.engine.distributed.ranges import Ranges
from batchrun.engine.stopping import StopSignal
from batchrun.errors import BatchrunError, MissingExtra, UsageError
from batchrun.job import Job, Limits
from batchrun.transport.loop import run as run_loop
from batchrun.worker import Order, decode_order, encode_order, of_storage, require_able, work

try:
    import ray
    from ray.exceptions import RayActorError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise MissingExtra('[engine] kind = "ray"', "ray") from None

if TYPE_CHECKING:
    from batchrun.finish.part import Order as FinishOrder
    from batchrun.finish.part import Part, Range

DRIVER: Final = "driver"
AHEAD: Final = 2  # tasks a worker that are under way or wait to be put together
TASK_RETRIES: Final = 1
SILENT_S: Final = 900.0
SHORT_S: Final = 1.0
LEFT_S: Final = 5.0
LOOK_S: Final = 300.0  # for a machine to look at its dataset, all of which may have to be read
STORE_BYTES: Final = 80 << 20  # of shared memory, the least that Ray takes: nothing is kept in it


class BrokerActor:
    """The broker of a run, as an asynchronous actor."""

    def __init__(self, limits: Limits, runs: list[tuple[int, int | None]], workers: int, prior: Decimal) -> None:
        """Remember what to make the broker of; it is made on the actor's event loop."""
        self._parts = limits, runs, workers, prior
        self._broker: Broker | None = None

    async def ask(self, worker: str, content: bytes) -> bytes:
        """Answer one question."""
        if self._broker is None:
            limits, runs, workers, prior = self._parts
            ranges = Ranges(runs, workers=workers, concurrency=limits.concurrency)
            self._broker = Broker(limits, ranges, workers=workers, prior=prior)
        return encode(await self._broker.ask(worker, decode_question(content)))


class WorkerActor:
    """A worker of a run; it has a process, and in it an event loop, of its own."""

    def work(self, order: bytes, broker: Any) -> None:
        """Collect what the broker hands out."""
        told = decode_order(order)
        os.environ.update(of_storage(told.environ))

        async def main() -> None:
            await work(told, ActorLine(broker, told.name))

        run_loop(main())


class ActorLine:
    """Carries questions to the broker's actor."""

    def __init__(self, broker: Any, name: str) -> None:
        """Ask as the worker `name`."""
        self._broker, self._name = broker, name

    async def ask(self, question: Question) -> Answer:
        """Return the answer. Raises `ConnectionError` when the broker is gone."""
        try:
            content: bytes = await self._broker.ask.remote(self._name, encode(question))
        except RayActorError as error:
            raise ConnectionError from error
        answer: Answer = decode_answer(content)
        return answer


class RayCrew:
    """The workers of a run on a Ray cluster."""

    def __init__(self, job: Job, runs: list[tuple[int, int | None]], *, workers: int, prior: Decimal) -> None:
        """Connect to nothing yet."""
        self._address = job.engine.address
        self._parts = job.limits, runs, workers, prior
        self._workers = workers
        self._actors: dict[str, Any] = {}
        self._connection = ExitStack()

    async def __aenter__(self) -> Self:
        self._connection.enter_context(connected(self._address, self._workers))
        broker: Any = ray.remote(num_cpus=0)(BrokerActor)
        self._broker = broker.options(scheduling_strategy=_beside_the_driver()).remote(*self._parts)
        self._line = ActorLine(self._broker, DRIVER)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for actor in (*self._actors.values(), self._broker):
            ray.kill(actor)
        self._connection.close()

    async def look(self, look: Look) -> View:
        """Ask the broker how far the run is."""
        try:
            view = await self._line.ask(look)
        except ConnectionError:
            hint = "`batchrun resume RUN` goes on from here"
            raise BatchrunError("the actor that shares the limits among the workers has died", hint=hint) from None
        if not isinstance(view, View):
            raise TypeError(f"a look was answered by {type(view).__name__}")
        return view

    async def lost(self, lost: Lost) -> None:
        """Tell the broker that a worker is dead."""
        await self._line.ask(lost)

    def hire(self, order: Order) -> asyncio.Task[bool]:
        """Start a worker's actor."""
        actor: Any = ray.remote(num_cpus=1, max_restarts=0)(WorkerActor).remote()
        self._actors[order.name] = actor
        return asyncio.get_running_loop().create_task(_left(actor, actor.work.remote(encode_order(order), self._broker)))

    def kill(self, worker: str) -> None:
        """End a worker's actor."""
        ray.kill(self._actors[worker])


def survey(order: Order, stop: StopSignal) -> None:
    """Have each machine that may be given a worker look whether it can do its part; raise `UsageError` for the first that cannot.

    What earlier sessions left there goes to the run's bucket. It ends when `stop` is asked for, with nothing said.
    """
    looks = _on_each_machine(_look, __version__, encode_order(order))
    give_up_at = time.monotonic() + LOOK_S
    while looks and ray.wait(list(looks.values()), num_returns=len(looks), timeout=SHORT_S)[1] and time.monotonic() < give_up_at:
        if stop.requests:
            return
    for address, look in looks.items():
        name = f"node {address} of the Ray cluster"
        try:
            problem: Stop | None = ray.get(look, timeout=SHORT_S)
        except RayError as error:
            hint = f"install this very batchrun there: pip install 'batchrun[ray]=={__version__}'"
            raise UsageError(f"{name} cannot work on this run: {str(error).strip().splitlines()[-1]}", hint=hint) from None
        if problem is not None:
            raise UsageError(f"{name} cannot work on this run: {problem.message}", hint=problem.hint)


def _look(version: str, order: bytes) -> Stop | None:
    """Return what keeps this machine from doing its part."""
    if version != __version__:
        hint = f"pip install 'batchrun[ray]=={version}' there"
        return Stop(code=UsageError.exit_code, message=f"it has batchrun {__version__}, the driver {version}", hint=hint)
    told = decode_order(order)
    os.environ.update(of_storage(told.environ))
    try:
        require_able(told, thorough=True)
        if told.home.place is not None:
            _send_left(told.home.place, of_storage(told.environ))
    except BatchrunError as error:
        return Stop.of(error)
    return None


def send_left(place: str) -> None:
    """Have each machine send to the bucket folder `place` what dead workers left there, and wait a little for it."""
    sent = list(_on_each_machine(_send_left, place, of_storage(os.environ)).values())
    if sent:
        ray.wait(sent, num_returns=len(sent), timeout=LEFT_S)


def _send_left(place: str, environ: Mapping[str, str]) -> None:
    """Send what dead workers left on this machine."""
    from batchrun.storage.mirror import send_left as send  # noqa: PLC0415 - only for a run in a bucket
    from batchrun.storage.mirror import spool_folder  # noqa: PLC0415

    os.environ.update(environ)
    send(place, spool_folder(place, os.environ))


def _beside_the_driver() -> NodeAffinitySchedulingStrategy:
    """Return what keeps an actor or a task on the driver's machine. Hard: Ray does not always keep to a soft wish."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _on_each_machine(work: Callable[..., object], *told: object) -> dict[str, Any]:
    """Begin a task on each machine that may be given a worker; return what to wait for, by the machine's address."""
    task: Any = ray.remote(num_cpus=0, max_retries=0)(work)
    known: Any = ray.nodes  # has no types
    nodes = [node for node in known() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return {
        f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}": task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*told)
        for node in nodes
    }


def spread(order: FinishOrder, ranges: Sequence[Range], *, here: bool = False) -> Generator[Part | None]:
    """Have ranges finished as tasks of the cluster; yield what each came to, in order, None for one that was not finished.

    The machines see the run's folder; with `here` the driver's alone does, and has all the tasks, one a processor.
    """
    from batchrun.finish.part import encode_order as encoded  # noqa: PLC0415 - loaded when a run ends

    job, content, environ = order.job, encoded(order), of_storage(os.environ)
    task: Any = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(_finish)
    waiting, at_work, most = deque(ranges), deque[Any](), AHEAD * job.engine.workers
    with connected(job.engine.address, job.engine.workers):
        if here:  # whatever the cluster was told of this machine's processors, which may be that it has none
            most = min(job.engine.workers, os.cpu_count() or 1)
            task = task.options(num_cpus=0, scheduling_strategy=_beside_the_driver())
        try:
            while waiting or at_work:
                while waiting and len(at_work) < most:
                    at_work.append(task.remote(content, waiting.popleft(), environ))
                yield _result(at_work.popleft())
        finally:
            for reference in at_work:
                ray.cancel(reference, force=True)


def _finish(order: bytes, rows: Range, environ: Mapping[str, str]) -> Part | None:
    """Finish one range, in a process of the cluster."""
    from batchrun.finish.part import OrderedFinisher  # noqa: PLC0415 - loaded when a run ends
    from batchrun.finish.part import decode_order as decoded  # noqa: PLC0415

    os.environ.update(environ)
    with suppress(BatchrunError), closing(OrderedFinisher(decoded(order))) as finisher:
        return finisher.finish(rows)
    return None  # the driver comes upon the error too, and says what it is


def _result(reference: Any) -> Part | None:
    """Return what a task came to, None where it failed or its process died."""
    try:
        part: Part | None = ray.get(reference, timeout=SILENT_S)
    except RayError:
        return None
    return part


@contextmanager
def connected(address: str | None, workers: int) -> Iterator[None]:
    """Be connected to the cluster at `address`, or to one started here for as long; a connection that is there serves."""
    if ray.is_initialized():
        yield
        return
    with _signals_kept():
        _connect(address, workers)
    try:
        yield
    finally:
        ray.shutdown()


def is_connected() -> bool:
    """Whether a cluster is at hand already."""
    return bool(ray.is_initialized())


async def _left(actor: Any, work: Any) -> bool:
    """Return whether the worker left in good order; its processor is free then for one that still waits for its own."""
    try:
        await work
    except RayError:
        return False
    ray.kill(actor)
    return True


def _connect(address: str | None, workers: int) -> None:
    """Connect to the cluster at `address`, or start one of this machine with room for the workers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    common: dict[str, Any] = {"logging_level": "error", "log_to_driver": False, "namespace": "batchrun"}
    try:
        if address is None:
            ray.init(
                num_cpus=workers,
                object_store_memory=STORE_BYTES,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **common,
            )
        else:
            ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"engine.address = {address!r}: no Ray cluster can be used: {error}",
            hint="start one with `ray start --head`; one that asks for a token wants its head's ~/.ray/auth_token here, too; "
            "or leave `address` out for one on this machine",
        ) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our handlers of SIGINT and SIGTERM: Ray sets its own, which would end the run where ours drain it."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
