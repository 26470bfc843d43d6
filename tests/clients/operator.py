"""An operator as people write them with kopf: a ConfigMap for each Greeting, told of in its status."""

import kopf
import kubernetes


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_):
    settings.persistence.finalizer = "clients.example/finalizer"
    settings.posting.level = 20


@kopf.on.create("clients.example", "v1", "greetings")
@kopf.on.update("clients.example", "v1", "greetings", field="spec")
def greet(spec, name, namespace, body, patch, **_):
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"text": f"Hello, {spec['who']}!"},
    }
    kopf.adopt(config)
    core = kubernetes.client.CoreV1Api()
    try:
        core.create_namespaced_config_map(namespace, config)
    except kubernetes.client.exceptions.ApiException as error:
        if error.status != 409:
            raise
        core.patch_namespaced_config_map(name, namespace, config)
    patch.status["greeted"] = spec["who"]
    kopf.info(body, reason="Greeted", message=f"{spec['who']} was greeted")


@kopf.on.delete("clients.example", "v1", "greetings")
def part(name, namespace, **_):
    core = kubernetes.client.CoreV1Api()
    core.create_namespaced_config_map(
        namespace, {"metadata": {"name": f"{name}-farewell"}, "data": {"text": "Farewell!"}}
    )
