"""deploy/kubernetes: every setting, command, route, label and reference exists, and pods have no rights to spare.

The manifests were validated against the JSON schemas of Kubernetes 1.29 to 1.37 when they were written; the package
with these schemas has more than a hundred megabytes.
"""

import argparse
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from fastapi.routing import iter_route_contexts

from app.arguments.commands import COMMANDS
from app.cli.serve import SHUTDOWN_GRACE_SECONDS
from app.main import create_app
from app.settings import Settings
from tests.doc_commands import REPOSITORY_ROOT

DIRECTORY = REPOSITORY_ROOT / "deploy" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    document for name in KUSTOMIZATION["resources"] for document in yaml.safe_load_all((DIRECTORY / name).read_text())
]
DEPLOYMENT = next(item for item in OBJECTS if item["kind"] == "Deployment")
SETTINGS: dict[str, str] = next(item for item in OBJECTS if item["kind"] == "ConfigMap")["data"]
SECRETS = {"patients-api-owner", "patients-api-serving"}
"""The secrets that deploy/README.md creates."""


def find_pods(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each template of a pod inside an object."""
    if isinstance(value, dict):
        if "containers" in value.get("spec", {}):
            yield value
        for part in value.values():
            yield from find_pods(part)


PODS = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for item in OBJECTS for pod in find_pods(item)}


def is_selected(labels: dict[str, str], selector: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_every_file_is_applied() -> None:
    """kustomization.yaml lists all files, and gives the image the version of the package."""
    files = {path.name for path in DIRECTORY.iterdir()} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files
    assert {item["kind"] for item in OBJECTS} >= {"Job", "Deployment", "Service", "PodDisruptionBudget", "CronJob"}
    (image,) = KUSTOMIZATION["images"]
    version = tomllib.loads((REPOSITORY_ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (image["name"], image["newTag"]) == ("patients-api", version)


@pytest.mark.parametrize("component", PODS)
def test_a_pod_has_no_rights_that_it_does_not_need(component: str) -> None:
    """A pod runs as the image's user on a read-only file system, without capabilities, token or service links."""
    spec = PODS[component]["spec"]
    (container,) = spec["containers"]
    user_id = int(re.findall(r"^USER (\d+):", (REPOSITORY_ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user_id,
        "runAsGroup": user_id,
        "fsGroup": user_id,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False, "PATIENTS_API_PORT is no setting, and the command would not start"
    assert container["image"] == "patients-api"
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("component", PODS)
def test_a_pod_refers_to_what_exists(component: str) -> None:
    """Commands, options, mounts, secrets and variables exist, and only `serve` gets the URL of the serving role."""
    spec = PODS[component]["spec"]
    (container,) = spec["containers"]
    command, *options = container["args"]
    parser = argparse.ArgumentParser()
    COMMANDS[command].add_arguments(parser)
    parser.parse_args(options)
    assert container["envFrom"] == [{"configMapRef": {"name": "patients-api-settings"}}]
    assert container["env"] == [{"name": "DATABASE_URL_FILE", "value": "/run/secrets/database/url"}]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"database": "/run/secrets/database", "tmp": "/tmp"}  # noqa: S108  # a mount in the pod
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes.keys() == mounts.keys()
    secret = "patients-api-serving" if command == "serve" else "patients-api-owner"
    assert volumes["database"]["secret"] == {"secretName": secret, "defaultMode": 0o440}


def test_the_settings_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of settings.yaml are settings, with valid values."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    assert Settings.load().auth == "required"


def test_probes_and_ports_are_those_of_the_service() -> None:
    """Probes request routes that exist, on the port that `serve` listens on, and a pod has the time to drain."""
    app = create_app(Settings.model_validate({"database_url": "postgresql://never-asked/"}))
    paths = {str(route.path) for route in iter_route_contexts(app.routes)}
    (container,) = PODS["serve"]["spec"]["containers"]
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    assert {probe["path"] for probe in probes.values()} <= paths
    parser = argparse.ArgumentParser()
    COMMANDS["serve"].add_arguments(parser)
    arguments = parser.parse_args(container["args"][1:])
    assert container["ports"] == [{"name": "http", "containerPort": arguments.port}]
    assert arguments.host == "0.0.0.0"  # noqa: S104  # in a pod
    drain_seconds = float(SETTINGS["PATIENTS_DRAIN_SECONDS"])
    assert drain_seconds + SHUTDOWN_GRACE_SECONDS < PODS["serve"]["spec"]["terminationGracePeriodSeconds"]


def test_selectors_match_the_pods() -> None:
    """Service, budget and Deployment select the serving pods only, and the network policy selects all pods."""
    selectors = [DEPLOYMENT["spec"]["selector"]["matchLabels"]]
    for item in OBJECTS:
        if item["kind"] == "Service":
            selectors.append(item["spec"]["selector"])
            assert item["spec"]["ports"][0]["targetPort"] == "http"
        if item["kind"] == "PodDisruptionBudget":
            selectors.append(item["spec"]["selector"]["matchLabels"])
            assert item["spec"]["maxUnavailable"] < DEPLOYMENT["spec"]["replicas"]
    assert len(selectors) == 3
    for selector in selectors:
        assert [name for name, pod in PODS.items() if is_selected(pod["metadata"]["labels"], selector)] == ["serve"]
    (policy,) = (item["spec"] for item in OBJECTS if item["kind"] == "NetworkPolicy")
    assert all(is_selected(pod["metadata"]["labels"], policy["podSelector"]["matchLabels"]) for pod in PODS.values())
    assert policy["ingress"][0]["ports"] == [{"port": "http"}]


def test_each_night_what_the_guide_says_runs() -> None:
    """There is a CronJob for each command that docs/operations.md runs each night, and none runs twice at once."""
    nightly = [item for item in OBJECTS if item["kind"] == "CronJob"]
    commands = [" ".join(pod["spec"]["containers"][0]["args"]) for item in nightly for pod in find_pods(item)]
    (line,) = re.findall(r"^- Each night, (.*)$", (REPOSITORY_ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert commands == re.findall(r"`patients-api ([a-z ]+)`", line)
    assert {item["spec"]["concurrencyPolicy"] for item in nightly} == {"Forbid"}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_accepts_the_files() -> None:
    """`kubectl kustomize` renders all objects, with the image's full name everywhere."""
    rendered = subprocess.run(["kubectl", "kustomize", DIRECTORY], check=True, capture_output=True, text=True).stdout
    assert len(list(yaml.safe_load_all(rendered))) == len(OBJECTS)
    assert "image: patients-api\n" not in rendered
