"""The life of one attempt as a pod, which any process can enter at any point (P9).

    stage inputs -> create behind a gate -> record (fsynced) -> open the gate -> follow logs, watch -> fetch -> outcome

- K1 the gate of a pod is opened only after the pod's uid is recorded with the attempt. So a pod without a record was
  never started, and is made again.
- K2 the pod's name follows from the attempt, and every change names the uid. A fenced process can neither record a pod
  (P3) nor open the gate of another pod than the recorded pod; a gate that two processes open lets the pod run once.
- K3 the exit code is the exit code in the pod's status. Outputs count only with exit code 0 and `_SUCCESS`.
- K4 a pod that the cluster has ended (an eviction, a lost node, a deletion) has not ended by itself: the attempt is
  lost, and not charged.
- K5 while the API server does not answer, the pod's state is unknown, and the run stays interrupted.
- K6 the attempt's pod, and then the attempt's objects, are removed when the outcome is on disk. At its timeout a pod is
  deleted before, as attempts may not overlap; a pod that is gone after its time is up counts as timed out.
"""

from __future__ import annotations

import asyncio
import logging
import os
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

import msgspec

from ...core.ground.clock import US, seconds, wall
from ...core.ground.detached import Detached
from ...core.ground.private import make_private
from ...core.ground.spec import AttemptLost
from ...core.ground.trees import remove_tree
from ...errors import (
    ContainerError,
    EngineUnavailableError,
    ImageNotFoundError,
    PerdureError,
    StoreUnavailableError,
    TaskTimeoutError,
    UsageError,
)
from ..background import AGAIN_SECONDS, GRACE, PATIENCE, SharedOutcome
from ..logs import LogSink, last_lines
from ..place import About, key_of
from ..program import Build, ContainerEnd, Program, Secrets, concluded, failure, hash_of
from ..redaction import NO_SECRETS
from . import tree
from .cluster import Cluster, ClusterRefused, Expired
from .service import ABOUT_KEY, Pods
from .spec import ABOUT, ATTEMPT, CLAIM, RUN, SPEC, STORE, PodRequest, pod, secret
from .status import OOM_KILLED, Phase, PodState, look
from .template import MAIN

log = logging.getLogger("perdure")

LOOK_SECONDS: Final = 2.0
"""How often events are looked for while a pod does not start."""
REFUSED_SECONDS: Final = 12.0
"""Seconds for which making a container may fail, as the kubelet tries again."""
MENTION_SECONDS: Final = 3.0
"""Seconds for which a pod may not start before the reason is logged."""
MARGIN: Final = 60.0
"""Seconds between perdure's deadline and the cluster's later deadline."""
REMOVED_SECONDS: Final = 60.0
_PASSED_ON: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Environment variables with the bucket's address, for the copilot. Credentials are not passed on."""


class _StartedPod(msgspec.Struct, frozen=True, array_like=True):
    """The record that precedes the start of a pod."""

    uid: str
    name: str
    namespace: str
    host: str
    image: str
    command: list[str]


class _Concluded(NamedTuple):
    """The task's value, which may be `None`."""

    value: Any


async def run(program: Program, pods: Pods, attempt: Detached, values: dict[str, Any], identity: bytes) -> Any:
    """One attempt, begun or joined. See `Background.run`."""
    return await PodLife(program, pods, attempt, values, identity).run()


class PodLife:
    def __init__(
        self, program: Program, pods: Pods, attempt: Detached, values: dict[str, Any], identity: bytes
    ) -> None:
        self.program = program
        self.pods = pods
        self.attempt = attempt
        self.values = values
        self.identity = identity
        self.key = key_of(attempt.run.uid, attempt.action, attempt.attempt)
        self.name = f"perdure-{program.slug}-{self.key}"
        self.objects = pods.objects(self.key)
        self.redactor = NO_SECRETS
        self.following: Future[None] | None = None
        """Takes the log lines; goes on after a timeout, until the container has ended."""
        self.heard = seconds()
        """Time of the cluster's last word of the pod."""

    async def run(self) -> Any:
        try:
            return await self._run()
        except (PerdureError, AttemptLost) as error:
            self.redactor.clean(error)
            raise

    async def _run(self) -> Any:
        await self.pods.ready(self.attempt.run.uid, self.attempt.action, self.attempt.attempt)
        state = self.attempt.state
        if state is None:
            found = await self._shared_or_created()
            if isinstance(found, SharedOutcome):
                return found.value
            started = found
        else:
            self.redactor = self.pods.secrets_of(self.program, self.attempt).redactor()
            started = msgspec.msgpack.decode(state, type=_StartedPod)
        sink = await self.pods.sink(self.program, self.attempt, self.redactor)
        ended = False
        try:
            seen = await self._until_ended(started, sink)
            ended = True
            return await self._outcome(started, seen, sink)
        except (asyncio.CancelledError, TaskTimeoutError):
            if self.attempt.seconds_left == 0:
                # The caller begins the next attempt on return, and attempts may not overlap.
                ended = await self._stopped(started)
            raise
        finally:
            if ended or not self.pods.linger(self.key, self.following, sink):
                sink.close()

    # -- begin -------------------------------------------------------------------------------------------------

    async def _shared_or_created(self) -> _StartedPod | SharedOutcome:
        """Create and record the pod; or the outputs that another run has left in the cache."""
        program = self.program
        if isinstance(program.image, Build):
            raise UsageError(
                f"{program.name}: Kubernetes builds no images: build {program.image.dockerfile}, push it where the "
                "cluster finds it, and name it with image=..."
            )
        arguments = program.interface.arguments(self.values, program.input_dir)
        if program.cache_version is not None:
            key = program.cache_key(program.image, program.rendered(arguments), self.identity)
            hit = self.attempt.cached(key)
            if hit is not None:
                return SharedOutcome(program.decode(hit))
            self.attempt.cached_under = key
        secrets = self.pods.secrets_of(program, self.attempt)
        self.redactor = secrets.redactor()
        cluster = await self.pods.ask(self.pods.cluster())
        command = program.rendered(arguments, self.key, self.attempt.run.name, str(self.attempt.action))
        settings = replace(
            program.settings, image=program.image, entrypoint=command.entrypoint, command=command.arguments
        )
        body, request = self._manifest(cluster, settings, secrets)
        staging = self.pods.in_thread(self._stage)
        await self.pods.ask(self.pods.whole(self.key, staging))
        uid = await self.pods.patiently(
            program.name,
            lambda: self.pods.whole(self.key, self._create(body, request, secrets)),
        )
        started = _StartedPod(uid, self.name, cluster.namespace, cluster.host, program.image, command.words)
        try:
            await self.attempt.keep(msgspec.msgpack.encode(started))
        except BaseException:
            # This process may not start the pod (any more). If the record was kept after all, the pod is missing, and
            # the next driver makes another attempt.
            self.pods.call(self._forget(cluster, uid))
            raise
        return started

    def _about(self) -> About:
        run = self.attempt.run
        return About(
            run.id, run.uid.hex(), run.name, self.attempt.action, self.attempt.attempt, self.pods.where.url, ""
        )

    def _stage(self) -> None:
        folder = self.pods.folder(self.key)
        remove_tree(folder)
        make_private(folder)
        self.objects.put(ABOUT_KEY, msgspec.json.encode(self._about()))
        program = self.program
        program.interface.stage(self.values, folder, program.input_dir, program.references(None))
        self.objects.put(tree.INPUTS, tree.pack(folder))
        remove_tree(folder)

    def _manifest(self, cluster: Cluster, settings: Any, secrets: Secrets) -> tuple[dict[str, Any], PodRequest]:
        program, attempt, where = self.program, self.attempt, self.pods.where
        left = attempt.seconds_left
        request = PodRequest(
            name=self.name,
            where=where,
            namespace=cluster.namespace,
            labels={STORE: self.pods.store_label, RUN: attempt.run.uid.hex(), ATTEMPT: self.key},
            annotations={
                "perdure/run-name": attempt.run.name,
                "perdure/task": program.name,
                CLAIM: attempt.token[:8].hex(),
                SPEC: hash_of(settings),
                ABOUT: msgspec.json.encode(self._about()).decode(),
            },
            settings=settings,
            pull=program.pull,
            input_dir=program.input_dir,
            output_dir=program.output_dir,
            inputs=f"{self.objects.url}/{tree.INPUTS}",
            outputs=self.objects.url,
            blobs=self.pods.blobs().url,
            secret_env=tuple(sorted(secrets.env)),
            secret_files=tuple(sorted(secrets.files)),
            deadline=left + where.pending + MARGIN if left is not None else None,
            template=program.pod_template,
            copilot_env={name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)},
        )
        return pod(request), request

    async def _create(self, body: dict[str, Any], request: PodRequest, secrets: Secrets) -> str:
        """The uid of the gated pod, whose Secret is made, too."""
        cluster = await self.pods.cluster()
        until = seconds() + REMOVED_SECONDS
        while True:
            found = await cluster.create("pods", body)
            self.pods.known = True
            if found is not None:
                break
            found = await cluster.get("pods", self.name)
            if found is None:
                continue
            notes = found["metadata"].get("annotations") or {}
            ours = all(notes.get(name) == body["metadata"]["annotations"][name] for name in (CLAIM, SPEC))
            if ours and found["metadata"].get("deletionTimestamp") is None:
                break  # the answer to an earlier request was lost
            # Without a record the pod was never started (K1).
            await cluster.delete("pods", self.name, uid=found["metadata"]["uid"], grace=0)
            if seconds() > until:
                raise ContainerError(f"{self.program.name}: pod {self.name} is in the way, and does not go")
            await asyncio.sleep(AGAIN_SECONDS)
        uid: str = found["metadata"]["uid"]
        if secrets.env or secrets.files:
            owned = secret(request, uid, secrets.env, secrets.files)
            while await cluster.create("secrets", owned) is None:
                await cluster.delete("secrets", self.name)
        return uid

    async def _forget(self, cluster: Cluster, uid: str) -> None:
        with suppress(PerdureError):
            found = await cluster.get("pods", self.name)
            if found is not None and found["metadata"]["uid"] == uid and look(found).step is Phase.GATED:
                await cluster.delete("pods", self.name, uid=uid, grace=0)

    # -- until it has ended ------------------------------------------------------------------------------------

    async def _until_ended(self, started: _StartedPod, sink: LogSink) -> PodState:
        warned = False
        silent_since: float | None = None
        while True:
            try:
                return await self.pods.ask(self._watch(started, sink))
            except _OtherClusterError as error:
                self.attempt.suspend(EngineUnavailableError(str(error)))
            except AttemptLost:
                if self.attempt.seconds_left == 0:
                    # An earlier process has ended the pod at the timeout.
                    raise TaskTimeoutError(f"task {self.program.name} took longer than its timeout") from None
                raise
            except EngineUnavailableError as error:
                if silent_since is None or self.heard > silent_since:
                    silent_since = seconds()
                if seconds() - silent_since > PATIENCE:
                    self.redactor.clean(error)
                    self.attempt.suspend(error)
                if not warned:
                    warned = True
                    log.warning("%s: waiting for the cluster: %s", self.program.name, error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _watch(self, started: _StartedPod, sink: LogSink) -> PodState:
        cluster = await self.pods.cluster()
        if cluster.namespace != started.namespace or (
            cluster.host != started.host and not await _is_in(cluster, started)
        ):
            raise _OtherClusterError(
                f"the pod of {self.program.name} is in namespace {started.namespace} of {started.host}, and "
                f"{cluster.namespace} of {cluster.host} is in use. Choose the first with PERDURE_CONTAINER_ENGINE."
            )
        if self.attempt.seconds_left != 0 and not await cluster.open_gate(started.name, started.uid):
            raise AttemptLost("the pod is gone")
        self.pods.known = True
        waiting = _Waiting(self.program.name, cluster, started.uid, self.pods.where.pending)
        updates: asyncio.Queue[dict[str, Any] | BaseException] = asyncio.Queue()
        watching = asyncio.ensure_future(_updates(cluster, started.name, updates))
        ended = asyncio.Event()
        found: dict[str, Any] | None = None
        try:
            while True:
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        news = await updates.get()
                except TimeoutError:
                    if found is None:
                        continue
                    # The state may have changed by time alone.
                else:
                    if isinstance(news, BaseException):
                        raise news
                    self.heard = seconds()
                    found = news
                if found["metadata"]["uid"] != started.uid:
                    raise AttemptLost("another pod has the name")
                if found.get("gone"):
                    raise AttemptLost("the pod was removed")
                seen = look(found, wall() / US, uploading=ended.is_set())
                if self.attempt.seconds_left == 0 and seen.step not in (Phase.UPLOADING, Phase.ENDED):
                    # The time was up before this process joined the pod.
                    raise TaskTimeoutError(f"task {self.program.name} took longer than its timeout")
                if self.following is None and seen.step in (Phase.RUNNING, Phase.UPLOADING, Phase.ENDED):
                    self.following = self.pods.call(_follow(cluster, started.name, sink, ended))
                if seen.step in (Phase.UPLOADING, Phase.ENDED):
                    ended.set()
                if seen.step is Phase.REFUSED and not waiting.refused_for_long(seen):
                    continue
                if self._is_over(seen):
                    if self.following is not None:
                        await last_lines(asyncio.wrap_future(self.following), self.program.name)
                    self._unfollow()
                    return seen
                await waiting.at(seen)
        except EngineUnavailableError:
            self._unfollow()
            raise
        finally:
            watching.cancel()
            ended.set()  # a follower that lingers looks once more, and ends

    async def _stopped(self, started: _StartedPod) -> bool:
        """Delete the pod at the attempt's timeout, and take its last lines; whether both succeeded."""
        try:
            await self.pods.ask(self._stop(started))
        except PerdureError as error:
            log.warning("%s: its pod cannot be ended yet: %s", self.program.name, error)
            return False
        if self.following is not None:
            await last_lines(asyncio.wrap_future(self.following), self.program.name)
        self._unfollow()
        return True

    async def _stop(self, started: _StartedPod) -> None:
        cluster = await self.pods.cluster()
        await cluster.delete("pods", started.name, uid=started.uid, grace=GRACE)
        until = seconds() + REMOVED_SECONDS
        while await _is_in(cluster, started):
            if seconds() > until:
                raise ContainerError(f"pod {started.name} does not end")
            await asyncio.sleep(AGAIN_SECONDS)

    def _unfollow(self) -> None:
        if self.following is not None:
            self.following.cancel()
            self.following = None

    def _is_over(self, seen: PodState) -> bool:
        """Whether the pod has ended by itself; any other end raises."""
        name = self.program.name
        match seen.step:
            case Phase.LOST:
                raise AttemptLost(seen.reason)
            case Phase.TIMED_OUT:
                raise TaskTimeoutError(f"task {name} took longer than its timeout: {seen.reason}")
            case Phase.NO_IMAGE:
                raise ImageNotFoundError(f"{name}: the cluster cannot get an image: {seen.reason}")
            case Phase.REFUSED:
                raise UsageError(f"{name}: the cluster cannot start the pod: {seen.reason}")
            case Phase.UNPREPARED:
                raise ContainerError(f"{name}: its container never began: {seen.reason}", exit_code=seen.exit_code)
            case Phase.ENDED:
                return True
        return False

    # -- its outcome -------------------------------------------------------------------------------------------

    async def _outcome(self, started: _StartedPod, seen: PodState, sink: LogSink) -> Any:
        program, folder = self.program, self.pods.folder(self.key)
        end = ContainerEnd(seen.exit_code, seen.oom_killed, "", started.image, started.command, list(sink.tail))
        try:
            found = await self._concluded(folder, end)
            if found is not None:
                return found.value
            if end.exit_code != 0:
                raise failure(program, end)
            why = seen.reason or "the copilot gave no reason"
            if why == OOM_KILLED:
                raise ContainerError(
                    f"{program.name}: the copilot ran out of memory while it took the outputs to the bucket: raise the "
                    "limit that the namespace sets for containers without one (its LimitRange)"
                )
            if seen.uploaded is None or seen.uploaded > 128:
                # The copilot was killed, and not told of a failure.
                raise AttemptLost(f"the outputs did not get to the bucket: {why}")
            raise ContainerError(f"{program.name}: its outputs could not be taken to the bucket: {why}")
        finally:
            with suppress(OSError):
                await self.pods.in_thread(lambda: remove_tree(folder))

    async def _concluded(self, folder: str, end: ContainerEnd) -> _Concluded | None:
        """The task's value; `None`: there are no outputs. A silent bucket is waited for, as outputs go with the
        attempt."""
        until = seconds() + PATIENCE
        while True:
            try:
                return await self.pods.in_thread(lambda: self._conclude(folder, end))
            except StoreUnavailableError as error:
                if seconds() > until:
                    self.attempt.suspend(error)
                log.warning("%s: waiting for the bucket: %s", self.program.name, error)
            await asyncio.sleep(AGAIN_SECONDS)

    def _conclude(self, folder: str, end: ContainerEnd) -> _Concluded | None:
        remove_tree(folder)
        make_private(folder)
        fetched = tree.fetch(self.objects, folder)
        return None if fetched is None else _Concluded(concluded(self.program, folder, end, self.redactor, fetched))


async def _is_in(cluster: Cluster, started: _StartedPod) -> bool:
    """Whether the cluster holds the pod: a cluster may have several addresses."""
    found = await cluster.get("pods", started.name)
    return found is not None and found["metadata"]["uid"] == started.uid


class _OtherClusterError(EngineUnavailableError):
    """Another cluster is chosen than the cluster of the pod."""


class _Waiting:
    """The wait for the start of a pod: logs the reason, and gives up after a while."""

    def __init__(self, name: str, cluster: Cluster, uid: str, patience: float) -> None:
        self._name = name
        self._cluster = cluster
        self._uid = uid
        self._patience = patience
        self._since: float | None = None
        self._reason = ""
        self._told: set[str] = set()
        self._refused_since: float | None = None

    def refused_for_long(self, seen: PodState) -> bool:
        """A kubelet tries again by itself, and a missing object may be there by then."""
        if not seen.passing:
            return True
        self._refused_since = self._refused_since or seconds()
        return seconds() - self._refused_since > REFUSED_SECONDS

    async def at(self, seen: PodState) -> None:
        """Note the present state of the pod.

        Raises:
            ContainerError: the pod could not start for too long.
        """
        self._refused_since = None
        if seen.step not in (Phase.PENDING, Phase.GATED):
            self._since = None
            return
        self._since = self._since or seconds()
        self._reason = seen.reason or self._reason
        waited = seconds() - self._since
        if waited > MENTION_SECONDS:
            self._reason = await self._event() or self._reason
            if self._reason and self._reason not in self._told:
                self._told.add(self._reason)
                log.warning("%s: its pod cannot start yet: %s", self._name, self._reason)
        if waited > self._patience:
            raise ContainerError(
                f"{self._name}: its pod has not started for {self._patience:g} s: "
                f"{self._reason or 'no reason is given'}"
            )

    async def _event(self) -> str:
        """The cluster's last warning about the pod."""
        try:
            found = await self._cluster.list("events", fields=f"involvedObject.uid={self._uid},type=Warning")
        except ClusterRefused:
            return ""  # not allowed to look; the status says most
        events = sorted(found["items"], key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        if not events:
            return ""
        return f"{events[-1].get('reason', '')}: {' '.join(str(events[-1].get('message', '')).split())}"


async def _updates(cluster: Cluster, name: str, to: asyncio.Queue[dict[str, Any] | BaseException]) -> None:
    """The pod now, and at each change; at the removal, with `gone`. Or an exception."""
    try:
        while True:
            listed = await cluster.list("pods", fields=f"metadata.name={name}")
            version = str(listed["metadata"].get("resourceVersion", "0"))
            if not listed["items"]:
                raise AttemptLost("the pod is gone")
            to.put_nowait(listed["items"][0])
            with suppress(Expired):
                while True:
                    async for event in cluster.watch(name, version):
                        found = event["object"]
                        version = str(found["metadata"]["resourceVersion"])
                        if event["type"] in ("ADDED", "MODIFIED"):
                            to.put_nowait(found)
                        elif event["type"] == "DELETED":
                            # The last state may tell of the end.
                            to.put_nowait(found)
                            to.put_nowait({**found, "gone": True})
                            return
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        to.put_nowait(error)


async def _follow(cluster: Cluster, name: str, sink: LogSink, ended: asyncio.Event) -> None:
    """Take the lines of the main container until the container has ended. A connection that breaks, or that a
    kubelet ends early, is opened again."""
    while True:
        last = ended.is_set()
        skip = sink.lines
        try:
            async for line in cluster.log(name, MAIN):
                if skip:
                    skip -= 1
                    continue
                sink.take(line)
                sink.lines += 1
            if last:
                return
        except EngineUnavailableError:
            pass
        # `asyncio.wait_for` of Python 3.11 loses a cancellation that comes together with the end of what it waits for.
        # The follower would live on beside its successor, and each line would be taken twice.
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_SECONDS):
                await ended.wait()
