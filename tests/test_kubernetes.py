"""What stands under `deploy/kubernetes`: manifests that Kubernetes accepts, an image with all that the steps need."""

import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from cxr.common import share
from steps import train
from steps.main import STEP
from steps.runtime.cli import parse

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy/kubernetes"
OBJECTS = {
    f"{file.name}: {one['kind']}": one
    for file in sorted(FOLDER.glob("*.yaml"))
    for one in yaml.safe_load_all(file.read_text())
}
JOB, SERVE, SERVICE = (OBJECTS[name] for name in ("main.yaml: Job", "serve.yaml: Deployment", "serve.yaml: Service"))
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
PARAMS = (ROOT / "params.yaml").read_text()
VERSION = "1.34"
TRAINING = OBJECTS["train.yaml: PyTorchJob"]


def fields(required: str = "", **known) -> dict:
    """Schema of an object that has these fields at most."""
    return {"type": "object", "properties": known, "required": required.split(), "additionalProperties": False}


TEXT, NUMBER, OBJECT = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "object"}
# Of a PyTorchJob, by the types in `pkg/apis/kubeflow.org/v1` of kubeflow/training-operator (`pytorch_types.go`,
# `common_types.go`). The template of a replica is a pod template of Kubernetes itself.
REPLICAS = fields(
    "template",
    replicas=NUMBER,
    restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
    template=fields("spec", metadata=OBJECT, spec=OBJECT),
)
PYTORCH_JOB = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "kubeflow.org/v1"},
    kind={"const": "PyTorchJob"},
    metadata=OBJECT,
    spec=fields(
        "pytorchReplicaSpecs",
        nprocPerNode=TEXT,
        elasticPolicy=OBJECT,
        runPolicy=fields(
            cleanPodPolicy={"enum": ["All", "Running", "None"]},
            ttlSecondsAfterFinished=NUMBER,
            activeDeadlineSeconds=NUMBER,
            backoffLimit=NUMBER,
            schedulingPolicy=OBJECT,
        ),
        pytorchReplicaSpecs=fields("Master", Master=REPLICAS, Worker=REPLICAS),
    ),
)


def pod(of: dict) -> dict:
    return of.get("spec", of)["template"]["spec"]


def container(of: dict) -> dict:
    [one] = pod(of)["containers"]
    return one


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def replicas() -> dict[str, dict]:
    return TRAINING["spec"]["pytorchReplicaSpecs"]


@pytest.mark.parametrize("name", [name for name in OBJECTS if name != "train.yaml: PyTorchJob"])
def test_kubernetes_accepts_each_object(name):
    kubernetes_validate.validate(OBJECTS[name], VERSION, strict=True)


def test_the_training_operator_knows_every_field_and_kubernetes_its_pods():
    jsonschema.validate(TRAINING, PYTORCH_JOB)
    for role, of in replicas().items():
        template = of["template"]
        name = f"{TRAINING['metadata']['name']}-{role.lower()}-0"
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}}
        kubernetes_validate.validate({**made, "spec": template["spec"]}, VERSION, strict=True)
    wrong = {**TRAINING, "spec": {**TRAINING["spec"], "runPolicy": {"backofLimit": 0}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, PYTORCH_JOB)


def test_the_processes_of_a_training_find_each_other(monkeypatch):
    """The variables are those that `setPodEnv` of the operator (`pkg/controller.v1/pytorch/envvar.go`) sets."""
    assert TRAINING["spec"]["nprocPerNode"] == "1"
    world = sum(of["replicas"] for of in replicas().values())
    ranks = [(role, index) for role in ("Master", "Worker") for index in range(replicas()[role]["replicas"])]
    one = container(replicas()["Master"])
    [port] = one["ports"]
    assert (one["name"], port["name"]) == ("pytorch", "pytorchjob-port")  # by which the operator knows them
    monkeypatch.setenv("MASTER_ADDR", f"{TRAINING['metadata']['name']}-master-0")
    monkeypatch.setenv("MASTER_PORT", str(port["containerPort"]))
    monkeypatch.setenv("WORLD_SIZE", str(world))
    found = []
    for role, index in ranks:
        monkeypatch.setenv("RANK", str(index + (role == "Worker")))
        found.append(share.from_environment())
    assert found == [share.Share(rank, world) for rank in range(world)] and world > 1


def test_each_pod_of_a_training_does_the_same_training():
    master, worker = (replicas()[role] for role in ("Master", "Worker"))
    assert master["template"] == worker["template"] and master["replicas"] == 1
    assert master["restartPolicy"] == worker["restartPolicy"] == "Never"
    assert container(master)["command"] == ["python", "-m", "steps.train"] and train.STEP.parallel
    assert container(master)["workingDir"] == instructions("WORKDIR")[0]
    arguments = parse(train.STEP, container(master)["args"])
    assert arguments.flags["split_run_id"] and arguments.flags["profile"] in yaml.safe_load(PARAMS)["profiles"]
    # The data is where the Job that splits it has read it from, since the manifest names that folder.
    assert [mount for mount in container(master)["volumeMounts"] if mount["name"] == "xrays"] == [
        mount for mount in container(JOB)["volumeMounts"] if mount["name"] == "xrays"
    ]


def test_an_unknown_key_would_be_refused():
    wrong = {**JOB, "spec": {**JOB["spec"], "backofLimit": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("of", [JOB, SERVE, replicas()["Master"]], ids=["Job", "Deployment", "PyTorchJob"])
def test_pods_run_without_rights_on_a_file_system_that_cannot_be_written(of):
    assert pod(of)["securityContext"]["runAsNonRoot"] and pod(of)["securityContext"]["runAsUser"] == 10001
    own = container(of)["securityContext"]
    assert (
        own["readOnlyRootFilesystem"]
        and not own["allowPrivilegeEscalation"]
        and own["capabilities"] == {"drop": ["ALL"]}
    )
    assert not pod(of)["automountServiceAccountToken"]
    volumes = {volume["name"] for volume in pod(of)["volumes"]}
    assert {mount["name"] for mount in container(of)["volumeMounts"]} == volumes
    assert "/tmp" in {mount["mountPath"] for mount in container(of)["volumeMounts"]}  # noqa: S108
    assert {"requests", "limits"} <= container(of)["resources"].keys()


def test_the_job_runs_main_with_parameters_that_it_has():
    words = container(JOB)["command"] + container(JOB)["args"]
    [entrypoint] = instructions("ENTRYPOINT")
    assert container(JOB)["command"] == yaml.safe_load(entrypoint)
    assert words[words.index("-e") + 1] == "main"
    given = dict(words[place + 1].split("=", 1) for place, word in enumerate(words) if word == "-P")
    arguments = parse(STEP, [word for name, value in given.items() for word in (f"--{name}", value)])
    mounts = {mount["mountPath"]: mount for mount in container(JOB)["volumeMounts"]}
    assert mounts[arguments.overrides["data.path"]]["readOnly"]
    assert str(Path(arguments.overrides["log_dir"]).parent) in mounts
    assert arguments.flags["profile"] in yaml.safe_load(PARAMS)["profiles"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in container(JOB)["env"]


def test_a_new_pod_of_the_job_recognises_what_the_last_one_left():
    """`steps.runtime.process` tells processes of this host from others by its name."""
    assert pod(JOB)["hostname"] == JOB["metadata"]["name"]
    assert JOB["spec"]["podReplacementPolicy"] == "Failed"
    assert JOB["spec"].get("parallelism", 1) == 1 and pod(JOB)["restartPolicy"] == "Never"


def test_probes_and_service_reach_what_nginx_serves():
    conf = (ROOT / "deploy/container/nginx.conf").read_text()
    [port] = container(SERVE)["ports"]
    assert f"listen {port['containerPort']};" in conf
    paths = {}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(SERVE)[probe]["httpGet"]
        assert asked["port"] == port["name"] and f"location = {asked['path']} " in conf
        paths[probe] = asked["path"]
    assert paths == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/ping"}
    [offered] = SERVICE["spec"]["ports"]
    assert offered["targetPort"] == port["name"]
    assert SERVICE["spec"]["selector"] == SERVE["spec"]["selector"]["matchLabels"]
    assert SERVICE["spec"]["selector"] == SERVE["spec"]["template"]["metadata"]["labels"]


def test_a_pod_of_the_service_has_time_to_finish_what_it_has_begun():
    waits = int(re.search(r"worker_shutdown_timeout (\d+)s", (ROOT / "deploy/container/nginx.conf").read_text())[1])
    sleeps = int(container(SERVE)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod(SERVE)["terminationGracePeriodSeconds"] > waits + sleeps


def test_the_image_has_the_python_of_the_project_and_packages_with_hashes():
    python = yaml.safe_load((ROOT / "python_env.yaml").read_text())["python"]
    assert instructions("FROM")[0].startswith(f"python:{python}-")
    installs = [run for run in instructions("RUN") if "pip install" in run]
    assert len(installs) == 1 and "--require-hashes --requirement requirements.txt" in installs[0]
    assert instructions("STOPSIGNAL") == ["SIGINT"] and instructions("USER") == ["10001:10001"]
