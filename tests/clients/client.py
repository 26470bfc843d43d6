"""What programs written for the Python client do, against the cluster that KUBECONFIG names."""

import sys
import time

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.stream import stream

NAMESPACE = sys.argv[1]
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "py", "namespace": NAMESPACE},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "py"}},
        "template": {
            "metadata": {"labels": {"app": "py"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {"name": "c", "image": "busybox:1", "command": ["/bin/busybox", "sleep", "3600"]}
                ],
            },
        },
    },
}


def running():
    pods = core.list_namespaced_pod(NAMESPACE, label_selector="app=py", resource_version="0")
    events = watch.Watch()
    for event in events.stream(
        core.list_namespaced_pod,
        NAMESPACE,
        label_selector="app=py",
        resource_version=pods.metadata.resource_version,
        timeout_seconds=60,
    ):
        if event["object"].status.phase == "Running":
            events.stop()
            return event["object"].metadata.name
    raise AssertionError("no pod is running")


def main():
    utils.create_from_dict(client.ApiClient(), DEPLOYMENT)
    pods = [p for p in core.list_namespaced_pod(NAMESPACE).items if p.status.phase == "Running"]
    pod = pods[0].metadata.name if pods else running()
    said = stream(
        core.connect_get_namespaced_pod_exec,
        pod,
        NAMESPACE,
        command=["/bin/busybox", "echo", "hello from python"],
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
    )
    assert said.strip() == "hello from python", said

    apps.patch_namespaced_deployment("py", NAMESPACE, {"metadata": {"labels": {"patched": "yes"}}})
    apps.patch_namespaced_deployment_scale("py", NAMESPACE, {"spec": {"replicas": 2}})
    deployment = apps.read_namespaced_deployment("py", NAMESPACE)
    assert deployment.metadata.labels == {"patched": "yes"}, deployment.metadata.labels
    assert deployment.spec.replicas == 2, deployment.spec.replicas
    assert deployment.metadata.creation_timestamp.year > 2000

    # The dynamic client finds kinds by discovery, and applies on the server's side.
    dyn = dynamic.DynamicClient(client.ApiClient())
    maps = dyn.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "py"}, "data": {"a": "1"}}
    for value in ("1", "2"):
        body["data"]["a"] = value
        applied = maps.server_side_apply(
            body=body, namespace=NAMESPACE, name="py", field_manager="python", force_conflicts=True
        )
        assert applied.data.a == value, applied
    try:
        maps.server_side_apply(
            body={**body, "data": {"a": "3"}}, namespace=NAMESPACE, name="py", field_manager="other"
        )
        raise AssertionError("nobody minded")
    except dynamic.exceptions.ConflictError as error:
        assert "Apply failed with 1 conflict" in error.summary(), error.summary()

    try:
        core.read_namespaced_config_map("absent", NAMESPACE)
        raise AssertionError("there is none")
    except client.exceptions.ApiException as error:
        assert error.status == 404, error

    apps.delete_namespaced_deployment("py", NAMESPACE, propagation_policy="Foreground")
    deadline = time.monotonic() + 60
    while core.list_namespaced_pod(NAMESPACE, label_selector="app=py").items:
        assert time.monotonic() < deadline, "pods do not go"
    print("the Python client is content")


main()
