"""The rules: what is looked for, why that is wrong in a body, and what to write instead."""

from __future__ import annotations

from typing import NamedTuple


class CheckRule(NamedTuple):
    """One rule."""

    name: str
    what: str
    """What is found."""
    reason: str
    instead: str
    calls: tuple[str, ...] = ()
    """Dotted names of functions, classes and modules (with `.*`) whose call is found."""


RULES: tuple[CheckRule, ...] = (
    CheckRule(
        "clock",
        "the body reads a clock",
        "a replay reads another time",
        "durable.time() or durable.now()",
        (
            "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter",
            "time.perf_counter_ns", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today",
            "datetime.date.today",
        ),
    ),
    CheckRule(
        "random",
        "the body draws a random number",
        "a replay draws another number",
        "durable.random(), or a trace",
        (
            "random.random", "random.randint", "random.randrange", "random.choice", "random.choices", "random.shuffle",
            "random.sample", "random.uniform", "random.gauss", "random.getrandbits", "random.betavariate",
            "random.expovariate", "random.normalvariate", "random.triangular", "random.randbytes",
            "random.SystemRandom", "secrets.*", "os.urandom", "numpy.random.*",
        ),
    ),
    CheckRule(
        "uuid",
        "the body makes a random UUID",
        "a replay makes another UUID",
        "durable.uuid4()",
        ("uuid.uuid1", "uuid.uuid4"),
    ),
    CheckRule(
        "environment",
        "the body reads its environment",
        "the run may go on in another process, on another machine",
        "an input of the task, or a trace",
        (
            "os.getenv", "os.environ.get", "os.getcwd", "os.getpid", "os.cpu_count", "socket.gethostname",
            "platform.node", "platform.platform", "pathlib.Path.cwd", "pathlib.Path.home", "getpass.getuser",
        ),
    ),
    CheckRule(
        "set-order",
        "the body follows the order of a set",
        "the order differs from process to process",
        "sorted(...), or a list or dict",
    ),
    CheckRule(
        "hash",
        "the body uses hash() or id()",
        "the value differs from process to process",
        "hashlib, or the object itself",
        ("hash", "id"),
    ),
    CheckRule(
        "sleep",
        "the body sleeps without a record",
        "the whole sleep begins again after a crash",
        "durable.sleep(...)",
        ("time.sleep", "asyncio.sleep"),
    ),
    CheckRule(
        "io",
        "the body reads or writes outside of a trace",
        "a replay does that again, and may read something else",
        "a trace",
        (
            "open", "input", "io.open", "os.open", "os.system", "os.popen", "os.listdir", "os.scandir", "os.walk",
            "os.remove", "os.unlink", "os.rename", "os.replace", "os.mkdir", "os.makedirs", "os.rmdir", "os.stat",
            "os.path.exists", "os.path.isfile", "os.path.isdir", "os.path.getsize", "os.path.getmtime", "glob.glob",
            "glob.iglob", "subprocess.*", "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
            "asyncio.open_connection", "shutil.*", "tempfile.*", "urllib.request.*", "http.client.*", "requests.*",
            "httpx.*", "aiohttp.*", "socket.socket", "socket.create_connection", "smtplib.*", "ftplib.*", "sqlite3.*",
            "psycopg.*", "boto3.*",
        ),
    ),
    CheckRule(
        "thread",
        "the body starts a thread or a process of its own",
        "perdure does not see what the thread does, and no replay waits for it",
        "asyncio.to_thread, a child task, or perdure.map",
        (
            "threading.Thread", "threading.Timer", "concurrent.futures.ThreadPoolExecutor",
            "concurrent.futures.ProcessPoolExecutor", "multiprocessing.Process", "multiprocessing.Pool",
        ),
    ),
    CheckRule(
        "global",
        "the body changes a global variable",
        "a replay changes the variable again, and another process does not see it",
        "a local variable, or an input and a result",
    ),
    CheckRule(
        "await",
        "a coroutine is not awaited",
        "the call is never made",
        "await",
    ),
    CheckRule(
        "type",
        "a parameter cannot be stored",
        "arguments of tasks and traces are recorded",
        "plain data; for a client, @perdure.trace(ignore=(...))",
    ),
    CheckRule(
        "swallow",
        "the body catches everything",
        "cancellation and the end of driving are exceptions, too",
        "except Exception",
    ),
    CheckRule(
        "finally",
        "a finally block has an effect outside of a trace",
        "the block also runs when the run is parked or moved, and once more afterwards",
        "a trace behind the block, or a durable call",
    ),
)  # fmt: skip

BY_NAME = {rule.name: rule for rule in RULES}


def rule_of_call(name: str) -> CheckRule | None:
    """The rule that forbids a call of that dotted name in a body."""
    for rule in RULES:
        if name in rule.calls:
            return rule
        for known in rule.calls:
            if known.endswith(".*") and name.startswith(known[:-1]):
                return rule
    return None


def page() -> str:
    """The rules as a table in Markdown."""
    lines = ["| rule | found where | why | instead |", "| --- | --- | --- | --- |"]
    lines += [f"| `{rule.name}` | {rule.what} | {rule.reason} | {rule.instead} |" for rule in RULES]
    return "\n".join(lines)
