"""Every error that perdure raises, as a tree; the name says whose fault the error is.

    PerdureError
    ├── UsageError                 you: the call, the input or the declaration is wrong; fix it and call again
    │   ├── CodeNotLoadedError         your file raised an exception while it was imported
    │   ├── TaskNotFoundError          no such task in that file
    │   ├── RunNotFoundError           no such run in this store
    │   ├── InputError                 an input is missing, unknown or of the wrong type
    │   ├── UnsupportedTypeError       a declared type that cannot cross the durability boundary
    │   ├── ValueMismatchError         a value that does not fit the declared type
    │   ├── ValueTooLargeError         a value over the inline limit
    │   ├── RunConflictError           the run name is taken by another task or other inputs
    │   ├── RunEndedError              a message for a run that has ended
    │   ├── AlreadySignalledError      the condition, or the key of a message, has another value
    │   ├── NestedRunError             `perdure.run` inside a task, or while a file is only being loaded
    │   ├── BranchError                a durable call from a place without a branch of its own
    │   └── InsideTraceError           a durable call that may not stand inside a trace
    ├── RunAlreadyActive           another driver has this run right now; wait for the run, or look there
    ├── RunAbortedError            the run was aborted by a person
    ├── RunCancelledError          the run was asked to cancel; at durable calls of sync code, and for callers
    ├── RunPausedError             the run is paused, or was paused while this process drove it; resume it
    ├── NonDeterminismError        the code does not ask for the recorded calls; restore the code
    │   └── GeneratorDivergedError     a generator that runs again does not give the recorded items
    ├── LeaseLostError             this process lost its claim (frozen or cut off too long); another may drive
    ├── CrashLoopError             ten attempts in a row died without a new entry
    ├── TaskTimeoutError           an attempt took longer than the task's `timeout`
    ├── MessageTimedoutError       no message came within the time limit
    │   └── ConditionTimedoutError     a condition was not signalled within its time limit
    ├── BodyDiedError              the process that executed a body ended before the body did
    ├── ContainerError             a container ended with another exit code than 0
    │   └── OOMError                   killed for using more memory than allowed
    ├── OutputMissingError         a container left no file for a declared output
    ├── OutputParseError           a container's file does not fit the declared type of the output
    ├── ImageNotFoundError         no such image here, and pulling failed
    ├── EngineUnavailableError     no container engine, or no answer
    ├── ClusterUnavailableError    no Ray cluster, or no answer
    ├── AttemptsLostError          the machine or the engine was lost under one attempt after another
    ├── NonRecoverableError        raised by user code: do not retry
    ├── RemoteError                a recorded exception whose own class cannot be rebuilt here
    └── StoreError                 the world: the database cannot be used
        ├── StoreUnavailableError      cannot be opened, read or written (missing, read-only, full, locked)
        ├── ForeignStoreError          the file is not a perdure store
        └── StoreVersionError          the schema is newer than the installed perdure

`RunStopped` stands outside the tree: control flow, derived from `BaseException`, so that user code that catches
`Exception` does not swallow the stop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = [
    "AlreadySignalledError",
    "AttemptsLostError",
    "BodyDiedError",
    "BranchError",
    "ClusterUnavailableError",
    "CodeNotLoadedError",
    "ConditionTimedoutError",
    "ContainerError",
    "CrashLoopError",
    "EngineUnavailableError",
    "ForeignStoreError",
    "GeneratorDivergedError",
    "ImageNotFoundError",
    "InputError",
    "InsideTraceError",
    "LeaseLostError",
    "MessageTimedoutError",
    "NestedRunError",
    "NonDeterminismError",
    "NonRecoverableError",
    "OOMError",
    "OutputMissingError",
    "OutputParseError",
    "PerdureError",
    "PerdureWarning",
    "RemoteError",
    "RunAbortedError",
    "RunAlreadyActive",
    "RunCancelledError",
    "RunConflictError",
    "RunEndedError",
    "RunMovedError",
    "RunNotFoundError",
    "RunPausedError",
    "RunStopped",
    "StoreError",
    "StoreUnavailableError",
    "StoreVersionError",
    "TaskNotFoundError",
    "TaskTimeoutError",
    "UnsupportedTypeError",
    "UsageError",
    "ValueMismatchError",
    "ValueTooLargeError",
]


class PerdureError(Exception):
    """Base of every error that perdure raises."""


class PerdureWarning(UserWarning):
    """A call works, but probably not as the author meant."""


class RunStopped(BaseException):
    """The run is no longer driven here (shutdown, lost lease, abort, parking): unwind, nothing more is recorded."""


class Parked(RunStopped):
    """The run leaves memory until a recorded deadline, a message or a slot of a limit; then the code is executed again:
    unwind. Raised by durable calls that are made meanwhile."""

    def __init__(
        self,
        message: str,
        wake: tuple[int, int] = (0, 0),
        *,
        waits: bool = False,
        tickets: tuple[tuple[str, int], ...] = (),
    ) -> None:
        super().__init__(message)
        self.wake = wake
        """Microseconds since the Unix epoch, and since this boot."""
        self.waits = waits
        """Whether the run waits for a message or for a limit."""
        self.tickets = tickets
        """The limits that the run waits for, with the numbers of the tickets."""


class UsageError(PerdureError):
    """The caller asked for something impossible; the message names the thing and the remedy."""


class CodeNotLoadedError(UsageError):
    """A file of the user's cannot be imported; `__cause__` is the exception from the file."""


class TaskNotFoundError(UsageError):
    """No such task in the file or module."""


class RunNotFoundError(UsageError):
    """No run of that name in this store."""


class InputError(UsageError):
    """An input is missing, unknown, or does not fit the type of the parameter."""


class UnsupportedTypeError(UsageError, TypeError):
    """A declared type, or a value under no declaration, that perdure cannot encode."""


class ValueMismatchError(UsageError, TypeError):
    """A value that does not fit its declared type; the message names an annotation that would fit."""


class ValueTooLargeError(UsageError, ValueError):
    """An encoded value over the inline limit."""


class RunConflictError(UsageError):
    """The run name belongs to another task, or to the same task with other inputs."""


class RunEndedError(UsageError):
    """The run has ended and takes no more messages."""


class AlreadySignalledError(UsageError):
    """The condition of the run, or the key of a message of the mailbox, has another value already."""


class NestedRunError(UsageError):
    """`perdure.run` where no run may start: inside a task, or while a file is loaded to resume a run."""


class BranchError(UsageError):
    """A durable call from a second task or thread on one branch, or from a thread that perdure did not start."""


class InsideTraceError(UsageError):
    """A sleep, task or container called inside a trace. A trace is recorded as one unit."""


class RunAlreadyActive(PerdureError):
    """The run is live in another process, or elsewhere in this process; the message says where."""


class RunAbortedError(PerdureError):
    """The run was aborted."""


class RunCancelledError(PerdureError):
    """The run was asked to cancel. Raised once in each sync body of the run, at a durable call, and by `Run.result` of
    a cancelled run."""


def cancelled_text(name: str, reason: str | None) -> str:
    """That a run was cancelled, and the reason."""
    return f"run {name!r} was cancelled" + (f": {reason}" if reason else "")


class RunPausedError(PerdureError):
    """The run or its task is paused, or was paused while this process drove the run. The run continues when the pause
    ends."""


def task_paused_text(name: str, task: str) -> str:
    """That a run stands still because its task is paused, and the remedy."""
    return f"run {name!r} stands still, because its task {task} is paused; to continue: perdure resume --task {task}"


def paused_text(name: str) -> str:
    """That a run is paused, and the remedy."""
    return f"run {name!r} is paused; to continue it: perdure resume {name}"


class RunMovedError(UsageError):
    """The run was moved to another store; the message names the store."""


class NonDeterminismError(PerdureError):
    """Replayed code of unchanged source asks for something else than the journal holds.

    Attributes:
        expected: the recorded call at this place, as text (`None`: nothing was recorded here).
        received: the call of the code, as text (`None`: the code no longer asks).
    """

    def __init__(self, message: str, *, expected: str | None = None, received: str | None = None) -> None:
        super().__init__(message)
        self.expected = expected
        self.received = received


class GeneratorDivergedError(NonDeterminismError):
    """A traced generator that was interrupted and executed again does not give the recorded items once more.

    Attributes:
        expected: the recorded item, as text.
        received: the item of the second execution, or its end, as text.
    """


class LeaseLostError(PerdureError):
    """This process lost its claim on the run; later outcomes of this process were not recorded."""


class CrashLoopError(PerdureError):
    """The run died ten times in a row without a new entry in the journal."""


class TaskTimeoutError(PerdureError, TimeoutError):
    """An attempt ran longer than the task's `timeout`."""


class MessageTimedoutError(PerdureError, TimeoutError):
    """No message came to the mailbox within the time limit of `perdure.receive`."""


class ConditionTimedoutError(MessageTimedoutError):
    """The condition was not signalled within its time limit."""


class BodyDiedError(PerdureError):
    """The process that executed a task's body (`executor="process"` or `"ray"`) ended before the body did: a
    segmentation fault, `os._exit`, a kill for want of memory.

    Attributes:
        task: the task's full name.
        attempt: the number of the attempt, from 1.
        exit_code: the exit code of the process, or `None` where a signal ended the process.
        signal: the name of the signal, such as `SIGSEGV`, or `None`.
    """

    def __init__(
        self, message: str, *, task: str = "", attempt: int = 0, exit_code: int | None = None, signal: str | None = None
    ) -> None:
        super().__init__(message)
        self.task = task
        self.attempt = attempt
        self.exit_code = exit_code
        self.signal = signal


class ContainerError(PerdureError):
    """A container ended with another exit code than 0, or reported its own failure in `_ERROR`.

    Attributes:
        exit_code: the exit code; 128 and more usually mean a signal.
        signal: the name of the signal that ended the container, such as `SIGKILL`, or `None`.
        oom_killed: whether the kernel killed the container for using too much memory.
        image: the image as the task names the image, and its digest or id.
        command: the rendered command, as the engine got it.
        log_tail: the last log lines, 50 at most.
        recoverable: `False` where the container itself said that trying again is pointless.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        signal: str | None = None,
        oom_killed: bool = False,
        image: str = "",
        command: tuple[str, ...] | list[str] = (),
        log_tail: tuple[str, ...] | list[str] = (),
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal = signal
        self.oom_killed = oom_killed
        self.image = image
        self.command = list(command)
        self.log_tail = list(log_tail)
        self.recoverable = True


class OOMError(ContainerError):
    """A container was killed because it used more memory than the `resources` allow."""


class OutputMissingError(PerdureError):
    """A container ended well but left nothing for a declared output.

    Attributes:
        output: the output's name.
        declared: the declared type, as text.
        found: the content of the output directory instead, as text.
    """

    def __init__(self, message: str, *, output: str = "", declared: str = "", found: str = "") -> None:
        super().__init__(message)
        self.output = output
        self.declared = declared
        self.found = found


class OutputParseError(PerdureError, ValueError):
    """A container's file for an output does not fit the declared type, or may not be taken.

    Attributes:
        output: the output's name.
        declared: the declared type, as text.
        found: the content, shortened, as text.
    """

    def __init__(self, message: str, *, output: str = "", declared: str = "", found: str = "") -> None:
        super().__init__(message)
        self.output = output
        self.declared = declared
        self.found = found


class ImageNotFoundError(PerdureError):
    """There is no such image here, and pulling it was not allowed or did not work."""


class EngineUnavailableError(PerdureError):
    """No container engine was found, or the chosen engine does not answer."""


class ClusterUnavailableError(PerdureError):
    """There is no Ray cluster at the address, or the cluster does not answer. The run stays interrupted."""


class AttemptsLostError(PerdureError):
    """The machine, the engine or the container itself was lost under one attempt after another."""


class NonRecoverableError(PerdureError):
    """Raise this (or a subclass) in a task to fail the task at once, without retries."""


class RemoteError(PerdureError):
    """A recorded exception whose class cannot be rebuilt from modules already imported.

    Attributes:
        type_name: the original class as `module.QualName`.
        message: `str()` of the original.
        traceback_text: the original traceback as text.
    """

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text


class StoreError(PerdureError):
    """The database cannot be used in its present state."""


class StoreUnavailableError(StoreError):
    """The database cannot be opened, read or written just now."""


class ForeignStoreError(StoreError):
    """The file is a database, or another file, that perdure did not make."""


class JournalDamagedError(StoreError):
    """What is stored of one run cannot be used: a segment of its journal was changed, removed or replaced."""


class RowDamagedError(StoreError):
    """A row of a table holds a value that cannot be read. `good` are the other rows of the same query."""

    good: list[tuple[Any, ...]]

    def __init__(self, message: str, good: Iterable[tuple[Any, ...]] = ()) -> None:
        super().__init__(message)
        self.good = list(good)


class StoreVersionError(StoreError):
    """The database was written by a newer perdure."""
