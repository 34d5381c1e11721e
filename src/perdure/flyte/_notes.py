"""Settings of Flyte without an effect on this machine: recorded on the object, and said once in a process."""

from __future__ import annotations

import logging
import threading

log = logging.getLogger("perdure")

_lock = threading.Lock()
_noted: dict[str, str] = {}
"""By setting: the first place that uses it. Guarded by `_lock`."""
_said: set[str] = set()


def note(setting: str, place: str) -> None:
    """Remember a setting without an effect; `place`: the environment or task that has it."""
    with _lock:
        _noted.setdefault(setting, place)


def say() -> None:
    """Log the settings that were noted since the last call, each once in a process."""
    with _lock:
        new = {setting: place for setting, place in _noted.items() if setting not in _said}
        _said.update(new)
    if new:
        shown = ", ".join(f"{setting} ({place})" for setting, place in new.items())
        log.warning("without an effect here, where bodies run in this process: %s", shown)
