"""The example files fit this perdure: they parse, their commands exist, and no process is killed early."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import yaml

from perdure.cli.serving import serve
from perdure.store.postgres.link import OLDEST
from perdure.store.sqlite import SQLiteStore

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"


def drain(command: list[str]) -> float:
    """For how long (seconds) a worker that was started like that lets end what is under way."""
    name, *words = command
    assert name == "serve"
    found: timedelta = serve.make_context("serve", words).params["drain"]
    return found.total_seconds()


def test_the_compose_file_fits() -> None:
    found = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    postgres, worker = found["services"]["postgres"], found["services"]["worker"]
    assert drain(worker["command"]) + 10 <= int(worker["stop_grace_period"].removesuffix("s"))
    assert int(postgres["image"].partition(":")[2]) * 10_000 >= OLDEST
    assert worker["environment"]["PERDURE_STORE"] == "postgresql://flows@postgres/flows"
    assert postgres["environment"]["POSTGRES_DB"] == postgres["environment"]["POSTGRES_USER"] == "flows"
    assert worker["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert postgres["healthcheck"]
    mounted = {volume.partition(":")[0] for service in (postgres, worker) for volume in service["volumes"]}
    assert mounted == set(found["volumes"])


def test_the_manifest_fits() -> None:
    secret, deployment = yaml.safe_load_all((DEPLOY / "workers.yaml").read_text())
    assert (secret["kind"], deployment["kind"]) == ("Secret", "Deployment")
    pod = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [container] = pod["spec"]["containers"]
    assert drain(container["args"]) + 10 <= pod["spec"]["terminationGracePeriodSeconds"]
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    assert secret["stringData"]["PERDURE_STORE"].startswith("postgresql://")
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["spec"]["volumes"]}


def test_the_probe_tells_whether_the_store_can_be_reached(tmp_path: Path) -> None:
    _, deployment = yaml.safe_load_all((DEPLOY / "workers.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    program, *words = container["readinessProbe"]["exec"]["command"]
    assert program == "perdure"
    SQLiteStore(tmp_path / "perdure.db").close()
    for url, code in ((f"sqlite:///{tmp_path}/perdure.db", 0), ("postgresql://x@127.0.0.1:1/x", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "perdure", *words], cwd=tmp_path, env={**os.environ, "PERDURE_STORE": url},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, (url, done.stderr)


def test_names_are_those_that_perdure_reads() -> None:
    sources = "".join(path.read_text() for path in (PROJECT / "src").rglob("*.py"))
    for file in DEPLOY.iterdir():
        for name in re.findall(r"PERDURE_\w+", file.read_text()):
            assert f'"{name}"' in sources, (file.name, name)


def test_the_docs_lead_to_each_file() -> None:
    docs = "".join(page.read_text() for page in (PROJECT / "docs").glob("*.md"))
    for file in DEPLOY.iterdir():
        assert f"(../deploy/{file.name})" in docs, file.name
