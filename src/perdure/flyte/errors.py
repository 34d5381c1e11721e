"""Flyte's errors under their names, so that `except` and `raise` in a script keep their meaning.

Each has a `code` (text, by default the name of the class), a `kind` (`user`, `system` or `unknown`) and a `worker`.
"""

from __future__ import annotations

from typing import Any, Literal

from ..errors import NonRecoverableError as _NonRecoverable

ErrorKind = Literal["system", "unknown", "user"]


class BaseRuntimeError(RuntimeError):
    """An error with a code, and with a kind that says whose fault the error is."""

    def __init__(self, code: str, kind: ErrorKind, root_cause_message: str, worker: str | None = None) -> None:
        super().__init__(root_cause_message)
        self.code = code
        self.kind = kind
        self.worker = worker


class InitializationError(BaseRuntimeError):
    """Something was used before it was set up."""


class RuntimeSystemError(BaseRuntimeError):
    """The system's fault."""

    def __init__(self, code: str, message: str, worker: str | None = None) -> None:
        super().__init__(code, "system", message, worker)


class UnionRpcError(RuntimeSystemError):
    """A call of a cluster's service failed."""


class RuntimeUnknownError(BaseRuntimeError):
    """An error of unknown origin."""

    def __init__(self, code: str, message: str, worker: str | None = None) -> None:
        super().__init__(code, "unknown", message, worker)


class LogsNotYetAvailableError(BaseRuntimeError):
    """There are no logs yet."""

    def __init__(self, message: str) -> None:
        super().__init__("LogsNotYetAvailable", "system", message, None)


class RuntimeUserError(BaseRuntimeError):
    """The task's own fault; `code` is the name of the exception's class."""

    def __init__(self, code: str, message: str, worker: str | None = None) -> None:
        super().__init__(code, "user", message, worker)


class NotInTaskContextError(RuntimeUserError):
    """A call that only a task may make."""


class RetriesExhaustedError(RuntimeUserError):
    """All attempts failed."""


class OOMError(RuntimeUserError):
    """The memory did not suffice."""


class TaskInterruptedError(RuntimeUserError):
    """The task was interrupted."""


class PrimaryContainerNotFoundError(RuntimeUserError):
    """A pod has no primary container."""


class ImagePullBackOffError(RuntimeUserError):
    """An image cannot be pulled."""


class InvalidImageNameError(RuntimeUserError):
    """An image has no valid name."""


class CustomError(RuntimeUserError):
    """An error with a code of the task's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message, "user")

    @classmethod
    def from_exception(cls, e: Exception) -> CustomError:
        """The exception under the name of its class."""
        error = cls(type(e).__name__, str(e))
        error.__cause__ = e
        return error


class NonRecoverableError(RuntimeUserError, _NonRecoverable):
    """Raise this to fail a task at once, without retries."""

    def __init__(self, message: str, code: str = "NonRecoverableError") -> None:
        super().__init__(code, message)


class TraceDoesNotAllowNestedTasksError(RuntimeUserError):
    """A trace called a task."""

    def __init__(self, message: str) -> None:
        super().__init__("TraceDoesNotAllowNestedTasksError", message, None)


class RuntimeDataValidationError(RuntimeUserError):
    """A value does not fit the declared type of an input or output."""

    def __init__(self, var: str, e: Exception | str, task_name: str = "") -> None:
        super().__init__("DataValidationError", f"task {task_name}: {var} does not fit the declared type: {e}", None)


class InvalidPackageError(RuntimeUserError):
    """An image names a system package that does not exist."""

    def __init__(self, package_name: str, original_error: str) -> None:
        self.package_name = package_name
        self.original_error = original_error
        super().__init__("InvalidPackageError", f"there is no system package {package_name!r}: {original_error}", None)


class _NamedError(RuntimeUserError):
    """An error with the name of its class as the code."""

    def __init__(self, message: str) -> None:
        super().__init__(type(self).__name__, message, "user")


class TaskTimeoutError(RuntimeUserError):
    """An attempt took longer than the task's limit."""

    def __init__(self, message: str, code: str = "TaskTimeoutError") -> None:
        super().__init__(code, message, "user")


class _NamedTimeoutError(TaskTimeoutError):
    def __init__(self, message: str) -> None:
        super().__init__(message, type(self).__name__)


class MaxRuntimeExceededError(_NamedTimeoutError):
    """An attempt ran too long."""


class MaxQueuedTimeExceededError(_NamedTimeoutError):
    """An attempt waited too long for its start."""


class DeadlineExceededError(_NamedTimeoutError):
    """All attempts together took too long."""


class ActionAbortedError(_NamedError):
    """The action was aborted."""


class ActionNotFoundError(RuntimeError):
    """There is no such action."""


class CodeBundleError(_NamedError):
    """The code cannot be packed."""


class ConditionAlreadyExistsError(_NamedError):
    """A condition of the name exists."""


class ConditionFailedError(_NamedError):
    """A condition failed."""


class ConditionNotFoundError(_NamedError):
    """There is no such condition."""


class ConditionTimedoutError(_NamedError):
    """A condition was not answered in time."""


class DeploymentError(_NamedError):
    """A deployment failed."""


class ImageBuildError(_NamedError):
    """An image cannot be built."""


class InlineIOMaxBytesBreached(_NamedError):
    """Inputs or outputs are too large."""


class ModuleLoadError(_NamedError):
    """A module cannot be loaded."""


class OnlyAsyncIOSupportedError(_NamedError):
    """An event loop of another kind than asyncio's."""


class ParameterMaterializationError(_NamedError):
    """A parameter of an app has no value."""


class RemoteTaskNotFoundError(_NamedError):
    """The cluster has no such task."""


class RemoteTaskUsageError(_NamedError):
    """A task of the cluster was called wrongly."""


class RestrictedTypeError(RuntimeUserError):
    """A type that may not be used here."""

    def __init__(self, message: str) -> None:
        super().__init__("RestrictedTypeUsage", message, "user")


class SlowDownError(RuntimeUserError):
    """The system asks for fewer calls."""

    def __init__(self, message: str) -> None:
        super().__init__("SlowDownError", message, "user")


class ResourceExhaustedError(SlowDownError):
    """A resource is used up."""


class SyncTaskCallInAsyncContextError(_NamedError):
    """A synchronous task was called on an event loop."""


class AppleSiliconError(RuntimeUserError):
    """An error of an Apple device."""

    CODE = "APPLE_SILICON_ERROR"

    def __init__(self, message: str, worker: str | None = None) -> None:
        super().__init__(self.CODE, message, worker)


class AppleSiliconBridgeUnreachableError(AppleSiliconError):
    """See `AppleSiliconError`."""

    CODE = "APPLE_SILICON_BRIDGE_UNREACHABLE"


class AppleSiliconDaemonOOMError(AppleSiliconError):
    """See `AppleSiliconError`."""

    CODE = "APPLE_SILICON_DAEMON_OOM"


class AppleSiliconDaemonStartFailedError(AppleSiliconError):
    """See `AppleSiliconError`."""

    CODE = "APPLE_SILICON_DAEMON_START_FAILED"


class AppleSiliconHostExecFailedError(AppleSiliconError):
    """See `AppleSiliconError`."""

    CODE = "APPLE_SILICON_HOST_EXEC_FAILED"


class AppleSiliconModelNotFoundError(AppleSiliconError):
    """See `AppleSiliconError`."""

    CODE = "APPLE_SILICON_MODEL_NOT_FOUND"


class AppleSiliconNotAvailableError(AppleSiliconError):
    """See `AppleSiliconError`."""

    CODE = "APPLE_SILICON_NOT_AVAILABLE"


_APPLE: tuple[type[AppleSiliconError], ...] = (AppleSiliconError, *AppleSiliconError.__subclasses__())
APPLE_SILICON_ERRORS_BY_CODE = {cls.CODE: cls for cls in _APPLE}


GPU_FAULT_CODES = (
    "GpuXidError", "GpuFallenOffBus", "GpuEccUncorrectable", "GpuRowRemapPending", "GpuNvlinkError", "GpuGspError",
)  # fmt: skip


class GPUFaultError(BaseRuntimeError):
    """A fault of a GPU."""

    def __init__(self, code: str, kind: ErrorKind, message: str, worker: str | None = None, **fault: Any) -> None:
        BaseRuntimeError.__init__(self, code, kind, message, worker)
        for name in ("kind", "code", "name"):
            setattr(self, f"fault_{name}", fault.get(f"fault_{name}"))
        for name in ("severity", "gpu_uuid", "gpu_index", "node", "pci_bus_id", "process"):
            setattr(self, name, fault.get(name))


class GPUFaultSystemError(GPUFaultError, RuntimeSystemError):
    """A fault of the hardware."""

    def __init__(self, code: str, message: str, worker: str | None = None, **fault: Any) -> None:
        GPUFaultError.__init__(self, code, "system", message, worker, **fault)


class GPUFaultUserError(GPUFaultError, RuntimeUserError):
    """A fault that the program caused."""

    def __init__(self, code: str, message: str, worker: str | None = None, **fault: Any) -> None:
        GPUFaultError.__init__(self, code, "user", message, worker, **fault)


def silence_polling_error(loop: Any, context: dict[str, Any]) -> None:
    """A handler for `loop.set_exception_handler`: the loop's own, as nothing polls here."""
    loop.default_exception_handler(context)
