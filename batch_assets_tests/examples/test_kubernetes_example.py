"""examples/kubernetes: whole manifests against Kubernetes' own schemas, and what they say against this package.

A RayCluster and the values of Dagster's chart have no schema that pip installs: their pods are
checked as pods, and the rest against what KubeRay's definition and the chart's schema say of it.
"""

import configparser
import inspect
import shlex
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from prometheus_client import generate_latest

from batch_assets.cli.serve import serve
from batch_assets.components.attributes import COMPONENT_TYPE
from batch_assets.dispatch.metrics import Metrics
from batch_assets.dispatch.worker import STORE_SECONDS
from batch_assets.server.tokens import TOKEN_VARIABLE, WEBHOOK_SECRET_VARIABLE
from batch_assets.settings.dispatch import DispatchSettings
from batch_assets.settings.in_place import RayExecutorSettings
from batch_assets.settings.pipeline import parse_pipeline
from batch_assets_tests.module_imports import REPOSITORY

FOLDER = REPOSITORY / "examples" / "kubernetes"
KUBERNETES = kubernetes_validate.latest_version()

WORKER_GROUP = {
    "type": "object",
    "required": ["groupName", "template", "maxReplicas", "minReplicas"],
    "properties": {
        "groupName": {"type": "string"},
        "replicas": {"type": "integer"},
        "minReplicas": {"type": "integer"},
        "maxReplicas": {"type": "integer"},
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
        "template": {"type": "object"},
    },
    "additionalProperties": False,
}
RAY_CLUSTER = {
    "type": "object",
    "required": ["headGroupSpec"],
    "properties": {
        "rayVersion": {"type": "string"},
        "headGroupSpec": {
            "type": "object",
            "required": ["template"],
            "properties": {
                "rayStartParams": WORKER_GROUP["properties"]["rayStartParams"],
                "template": {"type": "object"},
            },
            "additionalProperties": False,
        },
        "workerGroupSpecs": {"type": "array", "items": WORKER_GROUP},
    },
    "additionalProperties": False,
}
CODE_LOCATION = {
    "type": "object",
    "required": ["name", "image", "dagsterApiGrpcArgs", "port"],
    "properties": {
        "name": {"type": "string"},
        "image": {
            "type": "object",
            "required": ["repository", "pullPolicy", "tag"],
            "properties": {
                "tag": {"not": {"const": "latest"}},
                "pullPolicy": {"enum": ["Always", "IfNotPresent"]},
            },
        },
        "dagsterApiGrpcArgs": {"type": "array", "items": {"type": "string"}},
        "port": {"type": "integer"},
        "env": {"type": "array"},
        "envSecrets": {"type": "array"},
        "includeConfigInLaunchedRuns": {"required": ["enabled"]},
        "resources": {"type": "object"},
    },
    "additionalProperties": False,
}


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def check_pod(spec: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_the_job_is_one_and_its_pipeline_too() -> None:
    for document in documents("job.yaml"):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    definition, job = documents("job.yaml")
    pipeline = yaml.safe_load(definition["data"]["defs.yaml"])
    assert pipeline["type"] == COMPONENT_TYPE
    settings = parse_pipeline(pipeline["attributes"], "", "job.yaml")
    assert settings.name and isinstance(settings.executor, RayExecutorSettings)
    [container] = job["spec"]["template"]["spec"]["containers"]
    # As many workers as GPUs, with a core or more left for the run itself.
    gpus, cpus = container["resources"]["limits"]["nvidia.com/gpu"], container["resources"]["requests"]["cpu"]
    assert gpus * settings.executor.cpus_per_worker < int(cpus)
    [mount] = [each for each in container["volumeMounts"] if each["name"] == "definition"]
    assert container["command"] == ["batch-assets", "run", "-f", f"{mount['mountPath']}/defs.yaml"]


def test_the_ray_cluster_has_the_version_that_is_tested() -> None:
    [cluster] = documents("raycluster.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    jsonschema.validate(cluster["spec"], RAY_CLUSTER)
    assert f"ray=={cluster['spec']['rayVersion']}\n" in (REPOSITORY / "constraints.txt").read_text()
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        check_pod(group["template"]["spec"])


def test_the_values_are_those_of_dagsters_chart() -> None:
    [values] = documents("values.yaml")
    assert values.keys() == {
        "dagster-user-deployments", "runLauncher", "dagsterDaemon", "dagsterWebserver", "pythonLogs",
    }  # fmt: skip
    [location] = values["dagster-user-deployments"]["deployments"]
    jsonschema.validate(location, CODE_LOCATION)
    run = values["runLauncher"]["config"]["k8sRunLauncher"]["resources"]
    container = {"name": "code", "image": "x", "env": location["env"], "resources": location["resources"]}
    secrets = [{"secretRef": secret} for secret in location["envSecrets"]]
    check_pod(
        {"containers": [{**container, "envFrom": secrets}, {"name": "run", "image": "x", "resources": run}]}
    )
    addresses = {each["name"]: each["value"] for each in location["env"]}
    [cluster] = documents("raycluster.yaml")
    assert addresses["RAY_ADDRESS"] == f"ray://{cluster['metadata']['name']}-head-svc:10001"


def test_the_queue_worker_is_scaled_by_what_it_tells() -> None:
    for document in documents("dispatch.yaml"):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    settings_map, deployment, scaler = documents("dispatch.yaml")
    settings = DispatchSettings.model_validate(yaml.safe_load(settings_map["data"]["dispatch.yaml"]))
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    [mount] = container["volumeMounts"]
    verb, *arguments = container["command"][1:]
    assert verb == "dispatch"
    assert arguments == ["-f", f"{mount['mountPath']}/dispatch.yaml", "--queue", "$(QUEUE_URL)"]
    assert [each["name"] for each in container["env"]] == ["QUEUE_URL"]
    assert pod["spec"]["terminationGracePeriodSeconds"] >= settings.drain_timeout + STORE_SECONDS
    port = str(container["ports"][0]["containerPort"])
    assert settings.listen == f"0.0.0.0:{port}"
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == port
    assert pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    # The series by which it is scaled is one of the worker's.
    [metric] = scaler["spec"]["metrics"]
    queue = metric["external"]["metric"]["selector"]["matchLabels"]["queue"]
    told = Metrics()
    told.of_queue(queue)
    assert (
        f'{metric["external"]["metric"]["name"]}{{queue="{queue}"}}'
        in generate_latest(told.registry).decode()
    )
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_the_server_of_requests_is_told_what_it_needs() -> None:
    for document in documents("serve.yaml"):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    defs, deployment, service = documents("serve.yaml")
    pipeline = yaml.safe_load(defs["data"]["asks.yaml"])
    assert parse_pipeline(pipeline["attributes"], "", "serve.yaml").source.requests is not None
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    verb, *arguments = container["command"][1:]
    flags = {name.replace("_", "-") for name in inspect.signature(serve).parameters}
    assert verb == "serve" and {one[2:] for one in arguments[::2]} <= flags
    assert {TOKEN_VARIABLE, WEBHOOK_SECRET_VARIABLE} <= {each["name"] for each in container["env"]}
    [volume] = [each for each in pod["spec"]["volumes"] if each["name"] == "defs"]
    assert volume["configMap"]["items"] == [{"key": "asks.yaml", "path": "asks/defs.yaml"}]
    assert container["readinessProbe"]["httpGet"]["port"] == container["ports"][0]["name"]
    default = inspect.signature(serve).parameters["port"].default
    assert container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"] == default
    assert service["spec"]["selector"] == pod["metadata"]["labels"]


def test_the_systemd_unit_starts_the_server_again_and_ends_all_of_it() -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(REPOSITORY / "examples" / "systemd" / "batch-assets-serve.service")
    started = shlex.split(unit["Service"]["ExecStart"])
    assert started[1] == "serve"
    assert {one[2:] for one in started[2::2]} <= set(inspect.signature(serve).parameters)
    assert (unit["Service"]["Restart"], unit["Service"]["KillMode"]) == ("always", "mixed")


def test_a_wrong_field_would_be_found() -> None:
    job = documents("job.yaml")[1]
    job["spec"]["template"]["spec"]["containers"][0]["comand"] = ["x"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)
