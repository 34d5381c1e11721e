"""The specification of a pod, against the official OpenAPI schema of several versions."""

from __future__ import annotations

import base64
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

import perdure
from perdure.containers.engine import ContainerSpec
from perdure.containers.kubernetes.spec import DOWNLOAD, GATE, UPLOAD, PodRequest, merged, pod, secret
from perdure.containers.kubernetes.where import Where, read_where
from perdure.errors import UsageError
from perdure.extras import ContainerTask

from .kubelets import expanded

WHERE = Where(
    url="kubernetes://flows", namespace="flows", context=None, copilot="perdure-copilot:1",
    bucket_secret="bucket", service_account="flows", template={},
)  # fmt: skip
FULL = ContainerSpec(
    image="img:1", entrypoint=("/bin/sh", "-c"), command=("echo $(date) $HOME",), env={"A": "1"}, workdir="/w",
    user="1000:2000", platform="linux/arm64", cpu=1.5, memory=512 << 20, gpu=2, shm=1 << 20,
)  # fmt: skip


def request(settings: ContainerSpec = FULL, where: Where = WHERE, **more: Any) -> PodRequest:
    return PodRequest(
        name="perdure-greet-0123456789abcdef01234567", where=where, namespace="flows",
        labels={"perdure/run": "a" * 32}, annotations={"perdure/task": "greet"}, settings=settings, pull="always",
        input_dir="/var/inputs", output_dir="/var/outputs", inputs="s3://b/attempts/s/k/inputs",
        outputs="s3://b/attempts/s/k", blobs="s3://b", **more,
    )  # fmt: skip


TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "data"}, "annotations": {"sidecar.istio.io/inject": "false"}},
    "spec": {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "volumes": [{"name": "cache", "emptyDir": {}}],
        "initContainers": [{"name": "mesh", "image": "mesh:1", "restartPolicy": "Always"}],
        "containers": [
            {
                "name": "main",
                "env": [{"name": "A", "value": "theirs"}, {"name": "B", "value": "2"}],
                "volumeMounts": [{"name": "cache", "mountPath": "/cache"}],
                "securityContext": {"runAsNonRoot": True},
            }
        ],
        "restartPolicy": "OnFailure",
    },
}


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.33", "1.35", "1.37"])
@pytest.mark.parametrize("template", [{}, TEMPLATE])
@pytest.mark.parametrize("settings", [FULL, ContainerSpec(image="img:1")])
def test_the_specification_is_one(version: str, template: dict[str, Any], settings: ContainerSpec) -> None:
    more = {"secret_env": ("TOKEN",), "secret_files": ("/etc/token",), "deadline": 12.5, "template": template}
    found = request(settings, **more)
    kubernetes_validate.validate(pod(found), version, strict=True)
    made = secret(found, "uid-1", {"TOKEN": "t"}, {"/etc/token": b"\xff"})
    kubernetes_validate.validate(made, version, strict=True)
    assert base64.b64decode(made["data"]["file.0"]) == b"\xff"


def test_the_schema_would_tell() -> None:
    broken = pod(request())
    broken["spec"]["containers"][0]["imagePullPolicies"] = "Always"
    with pytest.raises(Exception, match="imagePullPolicies"):
        kubernetes_validate.validate(broken, "1.33", strict=True)


def test_the_users_image_is_unchanged_and_nothing_starts_before_its_inputs_and_the_record() -> None:
    spec = pod(request())["spec"]
    assert [each["name"] for each in spec["initContainers"]] == [DOWNLOAD, UPLOAD]
    download, upload = spec["initContainers"]
    assert "restartPolicy" not in download
    assert upload["restartPolicy"] == "Always"
    assert "startupProbe" in upload
    assert spec["schedulingGates"] == [{"name": GATE}]
    assert spec["restartPolicy"] == "Never"
    [main] = spec["containers"]
    assert (main["image"], main["imagePullPolicy"]) == ("img:1", "Always")
    # `$(...)` would be Kubernetes's; `$HOME` is the shell's.
    assert main["command"] == ["/bin/sh", "-c"]
    assert main["args"] == ["echo $$(date) $HOME"]
    assert main["resources"]["limits"] == {"cpu": "1500m", "memory": str(512 << 20), "nvidia.com/gpu": "2"}
    mounts = {each["mountPath"]: each for each in main["volumeMounts"]}
    assert mounts["/var/inputs"]["readOnly"]
    assert "readOnly" not in mounts["/var/outputs"]


def test_a_template_is_merged_without_losing_the_copilot() -> None:
    found = pod(request(template=TEMPLATE))
    spec = found["spec"]
    assert found["metadata"]["labels"]["team"] == "data"
    assert [each["name"] for each in spec["initContainers"]] == ["mesh", DOWNLOAD, UPLOAD]
    assert spec["restartPolicy"] == "Never"
    assert spec["nodeSelector"] == {"disk": "ssd", "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    [main] = spec["containers"]
    assert {each["name"]: each["value"] for each in main["env"]} == {"A": "1", "B": "2"}
    assert {each["mountPath"] for each in main["volumeMounts"]} == {"/cache", "/var/inputs", "/var/outputs", "/dev/shm"}
    assert main["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 2000}


def test_that_of_the_task_goes_before_that_of_the_cluster() -> None:
    where = Where(**{**WHERE.__dict__, "template": {"spec": {"nodeSelector": {"disk": "hdd", "zone": "a"}}}})
    spec = pod(request(ContainerSpec(image="i"), where, template=TEMPLATE))["spec"]
    assert spec["nodeSelector"] == {"disk": "ssd", "zone": "a"}


@pytest.mark.parametrize("text", ["$(HOME)", "$$", "$$$(A) $", "$(cat x) $$(A)", "a$b", "$(", "$$$$"])
def test_kubernetes_expands_a_command_to_the_given_text(text: str) -> None:
    [main] = pod(request(ContainerSpec(image="i", command=(text,))))["spec"]["containers"]
    assert expanded(main["args"][0], {"HOME": "/root", "A": "1"}) == text


def test_an_entrypoint_that_is_taken_away() -> None:
    [main] = pod(request(ContainerSpec(image="i", entrypoint=(), command=("/bin/x", "1"))))["spec"]["containers"]
    assert (main["command"], main.get("args")) == (["/bin/x", "1"], None)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"spec": {"containers": [{"name": "log-shipper", "image": "x"}]}}, "would keep the pod from ending"),
        ({"spec": {"containers": [{"name": "main", "image": "x"}]}}, "image of container 'main' comes from the task"),
        ({"spec": {"volumes": [{"name": "perdure-inputs"}]}}, "perdure's own"),
        ({"spec": {"initContainers": [{"image": "x"}]}}, "needs a name"),
        ({"spec": {"containers": {"main": {}}}}, "must be a list of objects"),
        ({"nodeSelector": {}}, "has `metadata` and `spec`, not nodeSelector"),
        ("/nowhere.yaml", "cannot be read"),
        ({"spec": {"containers": [{"name": "main", "volumeMounts": [{"name": "x", "mountPath": "/var/inputs/"}]}]}},
         "mounts something at /var/inputs"),
    ],
)  # fmt: skip
def test_a_template_that_would_break_it_is_refused_where_it_is_declared(template: Any, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        ContainerTask(name="t", image="i", pod_template=template)


def test_a_template_may_be_a_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "PodTemplate", "template": TEMPLATE}))
    task = ContainerTask(name="t", image="i", pod_template=path)
    assert task.program.pod_template["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert task.override(resources=perdure.Resources(cpu=1)).program.pod_template == task.program.pod_template
    found = read_where(f"kubernetes://flows?copilot=c&template={path}")
    assert found.template["spec"]["nodeSelector"] == {"disk": "ssd"}


def test_names_are_labels_of_dns() -> None:
    from perdure.containers.place import key_of

    name = f"perdure-{'x' * 24}-{key_of(b'u' * 16, 1, 1)}"
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
    assert len(name) <= 63


def test_merging_keeps_settings_of_either_side() -> None:
    assert merged({"a": [1], "b": {"c": 1}}, {"a": [2], "b": {"d": 2}}) == {"a": [1, 2], "b": {"c": 1, "d": 2}}
    assert merged({"x": 1}, {"x": 2}) == {"x": 2}
