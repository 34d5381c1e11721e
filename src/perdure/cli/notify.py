"""`perdure notify`: tell a webhook or a command of failed, stuck and waiting runs."""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .base import CliCommand, cli, common, length, log_to_stderr, output

if TYPE_CHECKING:
    from ..core.ground.ports import Store
    from ..upkeep.notifying import Send

NEWEST = 100
"""How many events `--list` shows."""

NOTIFY_EPILOG = """  PERDURE_NOTIFY_URL=https://hooks.example.org/T1/B2 perdure notify
  perdure notify --command ./tell.sh --on failure,stuck,waiting
  perdure notify --command ./tell.sh --task 'billing.*' --tag team=data --once
  perdure notify --list                       the receivers, and the newest events
  perdure notify --retry default              deliver again what was given up
  perdure notify --remove default             forget the receiver and its events"""


@cli.command("notify", cls=CliCommand, epilog=NOTIFY_EPILOG, short_help="Tell a webhook or a command of failures.")
@click.option("--url", metavar="URL", help="Deliver by POST, as JSON. An address with a secret: PERDURE_NOTIFY_URL.")
@click.option("--url-file", metavar="FILE", help="Read the address from a file.")
@click.option("--command", metavar="CMD", help="Deliver to a program: the event on stdin, its id in PERDURE_EVENT_ID.")
@click.option(
    "--on", "kinds", metavar="KINDS", default="failure,stuck", show_default=True,
    help="What to tell: failure, stuck, waiting.",
)  # fmt: skip
@click.option("--task", metavar="PATTERN", help="Only runs of such tasks; * and ? are wild.")
@click.option("--name", metavar="PATTERN", help="Only runs of such names; * and ? are wild.")
@click.option("--tag", "tags", metavar="NAME=VALUE", multiple=True, help="Only runs with the tag.")
@click.option("--as", "receiver", metavar="NAME", default="default", show_default=True, help="The receiver's name.")
@click.option(
    "--stuck-after", callback=length, metavar="LENGTH", default="5m", show_default=True,
    help="A run without a driver is stuck after that.",
)  # fmt: skip
@click.option(
    "--attempts", type=click.IntRange(min=1), metavar="N", default=12, show_default=True,
    help="Give an event up after so many failed attempts.",
)  # fmt: skip
@click.option("--link", metavar="URL", help="The address of the web page, for links in events.")
@click.option("--once", is_flag=True, help="Deliver what is due, and end; 1 if an attempt has failed.")
@click.option("--list", "listed", is_flag=True, help="Show the receivers and the newest events.")
@click.option("--retry", metavar="NAME", help="Deliver the dead events of a receiver again.")
@click.option("--remove", metavar="NAME", help="Forget a receiver, and its events.")
@common
def notify(listed: bool, retry: str | None, remove: str | None, **given: Any) -> None:
    """Deliver events about runs to a webhook or a command, until Ctrl-C.

    From the first start on the store keeps events for the receiver, also while no process delivers them. An event
    arrives at least once, always with the same id.
    """
    from .. import runtime
    from ..api.looking import store_exists

    log_to_stderr()
    if sum((listed, retry is not None, remove is not None)) > 1:
        raise click.UsageError("--list, --retry and --remove are different operations: give one of them")
    if (listed or retry is not None or remove is not None) and not store_exists():
        raise UsageError(f"there is no store {runtime.store_name()}")
    if not (listed or retry is not None or remove is not None):
        _deliver(**given)
        return
    store = runtime.worker().store
    if listed:
        _list(store)
    elif remove is not None:
        _known(store, remove)
        store.unsubscribe(remove)
        output.note(f"receiver {remove} is forgotten")
    else:
        assert retry is not None
        _known(store, retry)
        count = store.revive_notices(retry, store.clock.wall())
        output.note(f"{count} event{'' if count == 1 else 's'} for {retry} will be delivered again")


def _deliver(
    *,
    kinds: str,
    receiver: str,
    task: str | None,
    name: str | None,
    tags: tuple[str, ...],
    stuck_after: timedelta,
    attempts: int,
    link: str | None,
    once: bool,
    **where: str | None,
) -> None:
    from .. import runtime
    from ..api._names import check_name
    from ..api.tags import tags_of_words
    from ..core.ground.model import NoticeKind
    from ..upkeep.notifying import EventFilter, Notifier, ReceiverSettings

    check_name(receiver)
    words = [word.strip() for word in kinds.split(",") if word.strip()]
    unknown = [word for word in words if word not in list(NoticeKind)]
    if unknown or not words:
        raise UsageError(f"--on takes {', '.join(NoticeKind)} with commas in between, not {kinds!r}")
    wanted = EventFilter(task, name, tags_of_words(tags) or {})
    watched = ReceiverSettings(tuple(map(NoticeKind, words)), wanted, stuck_after.total_seconds())
    send = _send_of(**where)
    notifier = Notifier(runtime.worker().store, receiver, watched, send, attempts=attempts, base=link)
    notifier.begin()
    if not once:
        output.note(f"events ({', '.join(words)}) go to {receiver}; end with Ctrl-C")
        notifier.serve()
    notifier.observe()
    while notifier.deliver():
        pass
    output.note(f"{notifier.delivered} delivered, {notifier.failed} failed")
    if notifier.failed:
        raise SystemExit(1)


def _send_of(url: str | None, url_file: str | None, command: str | None) -> Send:
    from ..upkeep.notifying import to_command, to_webhook

    if sum(one is not None for one in (url, url_file, command)) > 1:
        raise click.UsageError("give one of --url, --url-file and --command")
    if command is not None:
        return to_command(command)
    if url_file is not None:
        try:
            with open(url_file, encoding="utf-8") as file:
                url = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{url_file} cannot be read: {error}") from None
    url = url or os.environ.get("PERDURE_NOTIFY_URL")
    if not url:
        raise click.UsageError("give --url, --url-file, --command, or set PERDURE_NOTIFY_URL")
    return to_webhook(url)


def _known(store: Store, name: str) -> None:
    known = [one.name for one in store.subscriptions()]
    if name not in known:
        raise UsageError(f"there is no receiver {name!r}; known are: {', '.join(known) or 'none'}")


def _list(store: Store) -> None:
    from ..core.ground.clock import moment
    from ..core.ground.model import NoticeState

    counts: dict[str, Counter[str]] = {}
    for one in store.notice_counts():
        counts.setdefault(one.subscription, Counter())[NoticeState(one.state).name.lower()] = one.number
    known = {one.name: one.kinds.split(",") for one in store.subscriptions()}
    events = []
    for notice in store.notices(NEWEST):
        run = store.run_by_id(notice.run)
        events.append({
            "receiver": notice.subscription,
            "event": notice.kind,
            "run": None if run is None else run.name,
            "at": moment(notice.at).isoformat(),
            "state": NoticeState(notice.state).name,
            "failed_attempts": notice.attempts,
            "reason": notice.error,
        })  # fmt: skip
    if output.json:
        receivers = [{"name": name, "on": on, "events": dict(counts.get(name, {}))} for name, on in known.items()]
        output.result_json({"receivers": receivers, "events": events})
        return
    for name, on in known.items():
        told = ", ".join(f"{number} {state}" for state, number in sorted(counts.get(name, {}).items()))
        output.result(f"{name}: {', '.join(on)}; {told or 'no events'}")
    for event in events:
        reason = f": {event['reason']}" if event["reason"] else ""
        output.result(f"{event['at']} {event['receiver']} {event['event']} {event['run']} {event['state']}{reason}")
    if not known:
        output.note("there is no receiver; perdure notify --url or --command makes one")
