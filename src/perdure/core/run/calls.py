"""The protocol of each durable call, written once.

A protocol is a generator that yields effects; `effects` has the effects and the two shells that drive a protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ...errors import (
    GeneratorDivergedError,
    RunCancelledError,
    RunStopped,
    StoreError,
    UsageError,
    ValueMismatchError,
)
from ..body.branch import Branch, Call
from ..body.delivery import Outcome
from ..body.scope import SCOPE, THREAD, set_scope
from ..body.waits import LoopWaiter, Sleeper, Waiter, sleep_until
from ..commit.records import Noted, Record, Taking
from ..ground.clock import Deadline, perf
from ..ground.model import ERROR, NO_PARENT, ROOT, VALUE, Action, CachePut, Kind, Message, Publication, Result, Streamed
from ..ground.spec import Function, TaskSpec
from ..ground.values import ANY, Codec, decode_error, encode_error, tame
from .attached import deadline_of
from .attempts import attempts, unreadable
from .driver import Driver
from .effects import Durable, Invoke, Protocol, record, run_async
from .execute import stray_stop
from .interfaces import EXHAUSTED, ItemSource, Origin
from .limits import LimitedCall
from .retrying import TraceRetries

# -- shared pieces ---------------------------------------------------------------------------------------------


def open_outcome(call: Call, outcome: Outcome, codec: Codec[Any], earlier: Sequence[int] = ()) -> Any:
    """The value of an outcome, or its exception raised; the exception remembers which entries it came from."""
    data = outcome.value
    try:
        if outcome.result != ERROR:
            return codec.decode(data) if data is not None else None
        assert data is not None
        error = decode_error(data)
    except UsageError as misfit:
        assert data is not None
        raise unreadable(call.body.driver, call.name, data, misfit) from None
    except StoreError as gone:
        raise stopped_by(call, gone) from gone
    raise tag(call, outcome, error, earlier)


def stored(call: Call, codec: Codec[Any], value: object) -> tuple[bytes, Any]:
    """The bytes of a value, and the copy for the caller. The content of a data frame goes into the blob store."""
    try:
        return codec.roundtrip(value)
    except StoreError as error:
        raise stopped_by(call, error) from error


def stopped_by(call: Call, error: StoreError) -> RunStopped:
    """Stop the run because the store or the blob store failed: user code must not take that for a failed step."""
    driver: Driver = call.body.driver
    driver.stop(error)
    return driver.stopped_error()


def tag(call: Call, outcome: Outcome, error: BaseException, earlier: Sequence[int]) -> BaseException:
    """Mark an exception with its entry, and with earlier entries of the same call, before raising, so that an attempt
    that ends by the exception can discard these entries."""
    # Past the class's own `__setattr__`, which may refuse (a frozen dataclass does).
    error.__dict__["__perdure_entry__"] = Origin(call.body.driver.run.uid, call.body.action, (*earlier, outcome.n))
    return error


def cancelled(call: Call, waiter: Waiter | None, item: int, at: int, began: int, child: int | None = None) -> Protocol:
    """`asyncio.CancelledError` has reached a durable call, perhaps with a started action `child`.

    If the call was waiting for its outcome, the cancellation is recorded already and its turn has come. If the work of
    the call was going on, the cancellation is recorded now, and the protocol goes on in its turn (B11).
    """
    body = call.body
    if body.over or body.leaving:
        return
    if isinstance(waiter, LoopWaiter):
        if waiter.cancelling:
            return
        if waiter.done() and not waiter.cancelled() and waiter.result() is not None:
            # The outcome had been handed over when the task was cancelled. Replay hands it over as well.
            return
    yield body.driver.cancelled(call, item, at, (perf() - began) // 1000 if at else 0, child)


def raised_by_hand(call: Call) -> bool:
    """Whether a `GeneratorExit` comes from user code, and not from the garbage collector closing the coroutine."""
    if asyncio._get_running_loop() is None:
        return THREAD.slot is not None and THREAD.slot.branch is call.branch
    return getattr(asyncio.current_task(), "branch", None) is call.branch


def asked_to_cancel() -> int:
    """How often the current asyncio task was asked to cancel itself, and has not taken that back.

    A call is cancelled if the number grows meanwhile. Otherwise a CancelledError is a stray one, also where the code
    has swallowed an earlier request."""
    if asyncio._get_running_loop() is None:
        return 0
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


# -- traces ----------------------------------------------------------------------------------------------------


def trace(
    call: Call, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], source: ItemSource | None = None
) -> Protocol:
    """A traced function, or with `source` the next item of a generator: the outcome, recorded or recorded now.

    The function is longer than 60 lines because `yield from` passes no GeneratorExit on to a part of its own.
    """
    body = call.body
    waiter: Any = None
    failure: BaseException | None = None
    at = began = 0
    codec, item = (function.signature.returns, 0) if source is None else (source.codec, source.item)
    retries: TraceRetries | None = None
    child: int | None = None
    limited = None if function.limit is None else LimitedCall(call, function, args, kwargs)
    asked = asked_to_cancel()
    try:
        outcome = waiter = body.begin(call, item)
        if waiter is not None:
            outcome = yield waiter
        if outcome is None and function.retries.count:
            retries = TraceRetries(call)
        while outcome is None:
            if retries is not None:
                child = retries.child
                if not (yield from retries.pause()):
                    return open_outcome(call, body.driver.cancelled_call(call, 0, at, child), ANY)
            if limited is not None and not (yield from limited.take()):
                return open_outcome(call, body.driver.cancelled_call(call, 0, at, child), ANY)
            at, began = body.driver.worker.clock.wall(), perf()
            if on_loop := asyncio._get_running_loop() is not None:
                body.executing += 1
            try:
                try:
                    # Here, not in a generator of its own: `yield from` does not pass a GeneratorExit on.
                    slot = None if limited is None else limited.slot
                    value = yield Invoke(call, function, args, kwargs, slot) if source is None else source
                    set_scope(body)
                    data, copy = (None, EXHAUSTED) if value is EXHAUSTED else stored(call, codec, value)
                    failure = None
                except BaseException as error:
                    failure = _failure(call, error, asked)
                extra: tuple[Any, ...] = () if limited is None else limited.rows
                if failure is None:
                    result = VALUE if source is None else Result.END if copy is EXHAUSTED else Result.ITEM
                elif retries is not None and retries.again(failure):
                    if limited is not None:
                        limited.give_back()
                    yield from retries.announce(at)
                    continue
                else:
                    result, data = ERROR, encode_error(failure)
                    extra = extra if retries is None else (*extra, *retries.given_up())
                took = (perf() - began) // 1000
                waiter = record(call, result, data, at, took, item=item, child=child, extra=extra)
            finally:
                if on_loop:
                    body.executing -= 1
            outcome = yield waiter
            if failure is None:
                if source is not None:
                    source.passed(outcome, live=True)
                return copy
    except asyncio.CancelledError:
        yield from cancelled(call, waiter, item, at, began, child if retries is None else retries.child)
        raise
    finally:
        if limited is not None:
            limited.give_back()
    # Outside the `try`: an outcome may itself be a CancelledError, and that cancels nothing.
    return close_outcome(call, outcome, codec, failure, source)


def _failure(call: Call, error: BaseException, asked: int) -> BaseException:
    """The failure of a traced function. Raises what is no failure: the end of the run, a cancellation, the garbage
    collector closing the coroutine. `asked`: `asked_to_cancel` as the call began."""
    # By type: the `__class__` of an exception may be a property that raises.
    kind, body = type(error), call.body
    if issubclass(kind, GeneratorExit) and not raised_by_hand(call):
        # In any context: that scope is left alone.
        raise error
    SCOPE.set(body)
    if issubclass(kind, RunStopped):
        assert isinstance(error, RunStopped)
        return stray_stop(body, f"trace {call.name}", error)
    if issubclass(kind, asyncio.CancelledError):
        if asked_to_cancel() > asked or body.over:
            raise error
        return error
    return tame(error)


def close_outcome(
    call: Call, outcome: Outcome, codec: Codec[Any], failure: BaseException | None, source: ItemSource | None = None
) -> Any:
    """The end of a call: a replayed outcome opened, or the failure that was just recorded raised."""
    earlier = () if source is None else source.numbers
    if failure is not None:
        raise_live(call, outcome, failure, earlier)
    call.body.driver.replayed += 1
    if source is not None and outcome.result != ERROR:
        if outcome.result == Result.END:
            return EXHAUSTED
        source.passed(outcome, live=False)
    return open_outcome(call, outcome, codec, earlier)


def raise_live(call: Call, outcome: Outcome, original: BaseException, earlier: Sequence[int]) -> None:
    """Raise a recorded failure as replay will. Only the traceback is the live original's."""
    assert outcome.value is not None
    raise tag(call, outcome, decode_error(outcome.value), earlier).with_traceback(original.__traceback__)


def diverged(call: Call, item: int, expected: str, received: str) -> RunStopped:
    """Stop the run because a generator that is executed again gives another item than the recorded one (P1), and give
    the error for user code."""
    driver: Driver = call.body.driver
    driver.stop(
        GeneratorDivergedError(
            f"The traced generator {call.name} was interrupted and executed again, and gives other items than before.\n"
            f"  expected: item {item} as recorded, {expected}\n"
            f"  received: {received}\n"
            "Nothing of the second execution was handed out. Let the generator continue after the recorded items, with "
            "@perdure.trace(resume=...), or make its items depend on its arguments alone. The run is unharmed: it "
            "stays interrupted and continues as soon as the code fits.",
            expected=expected,
            received=received,
        )
    )
    return driver.stopped_error()


def open_generator(call: Call) -> None:
    """The consumer asks for the first item of a generator that does not continue by itself."""
    replay = call.body.delivery.replay
    if replay is not None and replay.loosened:
        replay.execute_again((call.branch.id, call.fp, call.occ))


def close_generator(call: Call, item: int) -> None:
    """The consumer closed a generator before asking for `item`; no caller waits for the row."""
    body = call.body
    if body.over or body.returned:
        # What the garbage collector closes behind the end of the body is no part of its journal.
        return
    replay = body.delivery.replay
    if replay is not None and (call.branch.id, call.fp, call.occ, item) in replay.closed:
        return
    driver = body.driver
    after = body.delivery.last
    driver.outbox.append(Record(call, Result.CLOSED, None, driver.worker.clock.wall(), 0, item, None, after))
    driver.worker.flush_lazily(driver)


# -- readings --------------------------------------------------------------------------------------------------


def reading(
    call: Call, read: Callable[[Branch], Any], codec: Codec[Any], seen: Callable[[Branch, Any], None] | None = None
) -> Protocol:
    """A value read once and then fixed: time, a UUID, a random number. `seen` gets a replayed value."""
    waiter: Any = None
    try:
        outcome = waiter = call.body.begin(call)
        if waiter is not None:
            outcome = yield waiter
        if outcome is not None:
            call.body.driver.replayed += 1
            value = open_outcome(call, outcome, codec)
            if seen is not None:
                seen(call.branch, value)
            return value
        value = read(call.branch)
        waiter = record(call, Result.VALUE, codec.encode(value), call.body.driver.worker.clock.wall(), 0)
        yield waiter
        return value
    except asyncio.CancelledError:
        yield from cancelled(call, waiter, 0, 0, 0)
        raise


# -- publishing ------------------------------------------------------------------------------------------------


def publish(call: Call, row: Publication | Streamed) -> Protocol:
    """Publish a value, or write an item of a stream, in the commit that holds the outcome of the call (PB1, ST1)."""
    body = call.body
    waiter: Any = None
    try:
        outcome = waiter = body.begin(call)
        if waiter is not None:
            outcome = yield waiter
        if outcome is not None:
            body.driver.replayed += 1
            return open_outcome(call, outcome, ANY)
        waiter = record(call, Result.VALUE, None, row.at, 0, extra=(row,))
        yield waiter
        return None
    except asyncio.CancelledError:
        yield from cancelled(call, waiter, 0, 0, 0)
        raise


# -- sleep -----------------------------------------------------------------------------------------------------


def sleep(call: Call, seconds: float) -> Protocol:
    """Sleep until a deadline that is on disk before the sleep begins (P7)."""
    body = call.body
    clock = body.driver.worker.clock
    waiter: Any = None
    child: int | None = None
    at = began = 0
    try:
        outcome = waiter = body.begin(call)
        if waiter is not None:
            outcome = yield waiter
        if outcome is not None:
            body.driver.replayed += 1
            return open_outcome(call, outcome, ANY)
        at = clock.wall()
        began = perf()
        if seconds > 0 or (call.branch.id, call.fp, call.occ) in body.delivery.open_actions:
            action, deadline = yield from _deadline(call, seconds)
            child = action.action
            at = min(at, action.at)
            if not (yield from sleep_until(body, deadline)):
                return open_outcome(call, body.driver.cancelled_call(call, 0, at, child), ANY)
        waiter = record(call, Result.VALUE, None, at, max(0, clock.wall() - at), child=child)
        yield waiter
        return None
    except asyncio.CancelledError:
        yield from cancelled(call, waiter, 0, at, began, child)
        raise


# -- deadlines -------------------------------------------------------------------------------------------------


def timeout(call: Call, seconds: float, begun: asyncio.Future[None]) -> Protocol:
    """The watch of an async `durable.timeout`: returns when the deadline has passed and that is recorded. `begun` is
    resolved as soon as the block may be entered. Cancelled when the block ends before; nothing is recorded then."""
    body = call.body
    waiter: Any = None
    entrance = body.enter(begun)
    try:
        outcome = body.begin(call)
        if outcome.__class__ is not Outcome and outcome is not None:
            waiter = outcome
            # On replay the block goes on at once: the deadline fires in its turn, or not at all.
            entrance.open = True
            outcome = yield waiter
            waiter = None
        if outcome is None:
            began = perf()
            action, deadline = yield from _deadline(call, seconds)
            entrance.open = True
            if deadline.remaining(body.driver.worker.clock) > 0:
                yield Sleeper(body, deadline)
            at = deadline.wall - int(seconds * 1_000_000)
            waiter = record(call, Result.FIRED, None, at, (perf() - began) // 1000, child=action.action)
            yield waiter
            waiter = None
    except asyncio.CancelledError:
        if waiter is not None:
            body.forget(waiter)
        # For code that cancels every task in sight: no block may wait for an entrance that will never open.
        begun.cancel()
        raise
    except RunStopped as error:
        if not begun.done():
            begun.set_exception(error)
            begun.exception()
        raise


def timeout_begin(call: Call, seconds: float) -> Protocol:
    """The deadline of a sync `durable.timeout`, on disk."""
    if not call.body.asked_action(call):
        waiter = call.body.begin(call)
        if waiter is not None:
            yield waiter
    _, deadline = yield from _deadline(call, seconds)
    return deadline


def _deadline(call: Call, seconds: float | None, inputs: bytes | None = None) -> Protocol:
    """The action of a call that waits, and its deadline, if any: as recorded, or recorded now."""
    body = call.body
    action = body.delivery.open_actions.pop((call.branch.id, call.fp, call.occ), None)
    if action is None:
        clock = body.driver.worker.clock
        at = clock.wall()  # first, so that no sleep ever looks too short
        deadline = None if seconds is None else Deadline.after(seconds, clock)
        action = new_action(call, at, deadline=deadline, inputs=inputs)
        if on_loop := asyncio._get_running_loop() is not None:
            body.executing += 1
        try:
            yield Durable(body, Noted(body), action)
        finally:
            if on_loop:
                body.executing -= 1
    return action, deadline_of(action)


def new_action(call: Call, at: int, *, deadline: Deadline | None = None, inputs: bytes | None = None) -> Action:
    """The row of an action that `call` starts at that time."""
    body = call.body
    driver = body.driver
    wall, boot, boot_id = deadline if deadline is not None else (None, None, None)
    return Action(
        driver.run_id, body.action, driver.next_action(), call.branch.id, call.seq, call.occ, call.kind, call.fp,
        call.name, call.label, inputs, driver.source_id, at, 1, 0, wall, boot, boot_id,
        call.begun,
    )  # fmt: skip


# -- messages --------------------------------------------------------------------------------------------------


class MessageSpec(NamedTuple):
    """What a call waits for."""

    codec: Codec[Any]
    """The declared type of the message."""
    seconds: float | None
    """The time until the call gives up; `None`: never."""
    shown: bytes
    """The description of the wait, for people and senders (`ground.asked`)."""
    late: Callable[[], Exception]
    """Makes the error of a call that gives up."""


def receive(call: Call, wanted: MessageSpec) -> Protocol:
    """The next message of the box that the call is named after (MS1 to MS4)."""
    body = call.body
    driver = body.driver
    waiter: Any = None
    child: int | None = None
    failure: BaseException | None = None
    taking: Taking | None = None
    copy: Any = None
    at = began = 0
    try:
        outcome = waiter = body.begin(call)
        if waiter is not None:
            outcome = yield waiter
            waiter = None
        if outcome is None:
            at, began = driver.worker.clock.wall(), perf()
            message: Message | None = None
            if (call.branch.id, call.fp, call.occ) not in body.delivery.open_actions:
                message = driver.mailbox.take_now(call.name)
            if message is None:
                action, deadline = yield from _deadline(call, wanted.seconds, wanted.shown)
                child, at = action.action, min(at, action.at)
                while True:
                    message = yield driver.mailbox.wait(body, call.name, action, deadline)
                    if message is None and body.cancel_due:
                        return open_outcome(call, driver.cancelled_call(call, 0, at, child), ANY)
                    # Again where another thread of the body hears of the run's cancellation first.
                    if message is not None or (deadline is not None and deadline.remaining(driver.worker.clock) <= 0):
                        break
            took = max(0, driver.worker.clock.wall() - at)
            if message is None:
                failure = wanted.late()
                waiter = record(call, Result.ERROR, encode_error(failure), at, took, child=child)
            else:
                data = message.value
                try:
                    data = as_declared(wanted.codec, data)
                    copy = wanted.codec.decode(data)
                except UsageError as misfit:
                    failure = ValueMismatchError(f"{call.name}, message {message.number}: {misfit}")
                    data = encode_error(failure)
                taking = driver.mailbox.taking(message)
                waiter = _record_message(call, taking, VALUE if failure is None else ERROR, data, at, took, child)
            outcome = yield waiter
            if taking is not None and not taking.shared and not body.heard(taking):
                raise driver.stopped_error()
            if failure is None:
                return copy
    except StoreError as error:
        raise stopped_by(call, error) from error
    except asyncio.CancelledError:
        yield from cancelled(call, waiter, 0, at, began, child)
        raise
    return close_outcome(call, outcome, wanted.codec, failure)


def as_declared(codec: Codec[Any], data: bytes) -> bytes:
    """The bytes of a value as the codec writes them, where the bytes were written without a declared type.

    Raises:
        ValueMismatchError: the value does not fit the declared type.
    """
    try:
        codec.decode(data)
        return data
    except ValueMismatchError as misfit:
        try:
            # Tuples and sets are written in another way where no type is declared.
            again = codec.encode(ANY.decode(data))
            codec.decode(again)
        except UsageError:
            raise misfit from None
        return again


def _record_message(
    call: Call, taking: Taking, result: int, data: bytes, at: int, took: int, child: int | None
) -> LoopWaiter | Record:
    body = call.body
    try:
        if not taking.shared:
            body.takes(taking)
        waiter = record(call, result, data, at, took, child=child, extra=(taking,))
    except BaseException:
        body.heard(taking)
        taking.refuse()
        raise
    if isinstance(waiter, LoopWaiter):
        waiter.taking = taking
    return waiter


# -- child tasks -----------------------------------------------------------------------------------------------


def child_task(call: Call, spec: TaskSpec, inputs: bytes, identity: bytes) -> Protocol:
    """A task called inside a run: an action of its own, with attempts."""
    body = call.body
    driver = body.driver
    waiter: Any = None
    action: Action | None = None
    failure: BaseException | None = None
    at = began = 0
    try:
        outcome = waiter = body.begin(call)
        if waiter is not None:
            outcome = yield waiter
        if outcome is None:
            at = driver.worker.clock.wall()
            began = perf()
            action = body.delivery.open_actions.pop((call.branch.id, call.fp, call.occ), None)
            key = spec.cache_key(identity) if spec.cache_key is not None else None
            # An action under way is carried to its own end, even if other runs have cached an outcome meanwhile.
            hit = driver.worker.store.cache_get(key) if key is not None and action is None else None
            if hit is not None and not spec.signature.returns.reads(hit):
                hit = None  # cached under another declaration of the result
            if hit is not None:
                waiter = record(call, Result.VALUE, hit, at, 0)
                outcome = yield waiter
            else:
                recorded = action is not None
                if action is None:
                    action = new_action(call, at, inputs=inputs)
                    driver.started(body, action)
                else:
                    at = action.at
                result, data, live, extra = yield from attempts(
                    driver, spec, action, inputs, parent=body, floor=call.branch.floor, recorded=recorded
                )
                if key is not None and result == Result.VALUE:
                    extra = (*extra, CachePut(key, data, driver.worker.clock.wall()))
                took = max(0, driver.worker.clock.wall() - at)
                waiter = record(call, result, data, at, took, child=action.action, extra=extra)
                outcome = yield waiter
                driver.attached.settled(action.action)
                if result == Result.VALUE:
                    return live
                failure = live
                if isinstance(live, RunCancelledError):
                    body.cancel_delivered = True
    except StoreError as error:
        # An error of perdure, not of the body: user code must not catch it, and no retry is charged.
        raise stopped_by(call, error) from error
    except asyncio.CancelledError:
        yield from cancelled(call, waiter, 0, at, began, action.action if action is not None else None)
        raise
    return close_outcome(call, outcome, spec.signature.returns, failure)


def root(driver: Driver) -> Any:
    """The run's own task, as a coroutine: `(Result, bytes, live value or error, rows of the last failure)`."""
    run = driver.run
    found = driver.root_action()
    spec = driver.spec
    action = (
        found
        if found is not None
        else Action(
            driver.run_id, NO_PARENT, ROOT, 0, 0, 0, Kind.TASK, bytes(16), spec.name, None, None, driver.source_id,
            driver.worker.clock.wall(), 1, 0, None, None, None,
        )
    )  # fmt: skip
    return run_async(
        attempts(
            driver, spec, action, run.inputs, parent=None, floor=0, recorded=not driver.fresh, stored=found is not None
        )
    )
