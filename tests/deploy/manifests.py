"""Checks the objects that `kustomize build` makes of an overlay: against the API's schemas, against the restricted Pod
Security Standard, and against each other.

    manifests.py KUBERNETES_VERSION… < built.yaml

In HTTPRoutes, PodMonitors and PrometheusRules, the script checks only the names and types of fields. If GATEWAY_MODELS
is a folder with the npm package @kubernetes-models/gateway-api, it also checks the values of HTTPRoutes. It cannot
check the CEL rules of their CRDs, and it cannot check whether a controller accepts the objects.
"""

import json
import os
import re
import subprocess
import sys
from importlib import metadata

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

import memory

CUSTOM = {"PodMonitor": operator.PodMonitor, "PrometheusRule": operator.PrometheusRule}

# The fields of an HTTPRoute that every gateway supports. GKE refuses a route with `timeouts`.
HTTP_ROUTE = {
    "spec": {
        "parentRefs": {"group": {}, "kind": {}, "name": {}, "namespace": {}, "sectionName": {}, "port": {}},
        "hostnames": {},
        "rules": {
            "matches": {"path": {"type": {}, "value": {}}},
            "backendRefs": {"group": {}, "kind": {}, "name": {}, "namespace": {}, "port": {}, "weight": {}},
        },
    },
}

# Label and port of the pods that cert-manager starts for HTTP-01 challenges.
SOLVER, SOLVER_PORT = {"acme.cert-manager.io/http01-solver": "true"}, 8089

# Time in seconds that a hub needs to stop after its drain: see the base's deployment.yaml.
HUB_END_SECS = 4

problems = []


def check(holds, what):
    if not holds:
        problems.append(what)


def name(thing):
    return f"{thing['kind']}/{thing['metadata']['name']}"


def schemas(things, versions):
    for thing in things:
        if thing["kind"] in CUSTOM:
            # Checks the structure and the names of fields. The API server silently removes fields that the operator
            # does not know.
            known = CUSTOM[thing["kind"]].model_validate(thing).model_dump(by_alias=True, exclude_none=True, mode="json")
            for path in sorted(paths(thing) - paths(known)):
                problems.append(f"{name(thing)}: the operator does not know the field {path}")
            continue
        if thing["kind"] == "HTTPRoute":
            http_route(thing)
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                problems.append(f"{name(thing)} in Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}")


def http_route(route):
    check(route["apiVersion"] == "gateway.networking.k8s.io/v1", f"{name(route)}: {route['apiVersion']}")
    known = {f".spec{path}" for path in paths(HTTP_ROUTE["spec"])} | {".spec"}
    said = {path.replace("[]", "") for path in paths({"spec": route["spec"]})}
    for path in sorted(said - known):
        problems.append(f"{name(route)}: not every gateway supports {path}")
    models = os.environ.get("GATEWAY_MODELS")
    if not models:
        print(f"  {name(route)}: its values were not checked against the Gateway API")
        return
    script = os.path.join(os.path.dirname(__file__), "httproute.mjs")
    tried = subprocess.run(["node", script, models], input=json.dumps(route), text=True, capture_output=True)
    check(tried.returncode == 0, f"{name(route)}: {(tried.stdout + tried.stderr).strip()}")


def paths(value, at=""):
    if isinstance(value, dict):
        return set().union(*({f"{at}.{key}"} | paths(inner, f"{at}.{key}") for key, inner in value.items())) if value else set()
    if isinstance(value, list):
        return set().union(*(paths(inner, f"{at}[]") for inner in value)) if value else set()
    return set()


def restricted(thing, pod):
    """Checks a pod against https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    at, spec = name(thing), pod["spec"]
    for shared in ("hostNetwork", "hostPID", "hostIPC"):
        check(not spec.get(shared), f"{at}: {shared} must not be set")
    whole = spec.get("securityContext", {})
    check(not whole.get("sysctls"), f"{at}: sysctls must not be set")
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
        check(kinds <= allowed, f"{at}: the standard does not allow a volume of {kinds}")
    for container in spec.get("initContainers", []) + spec["containers"]:
        at_container, own = f"{at} {container['name']}", container.get("securityContext", {})
        check(own.get("allowPrivilegeEscalation") is False, f"{at_container}: allowPrivilegeEscalation must be false")
        check(not own.get("privileged"), f"{at_container}: privileged must not be set")
        check(own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True, f"{at_container}: runAsNonRoot must be true")
        check(own.get("runAsUser", whole.get("runAsUser")) != 0, f"{at_container}: runAsUser must not be 0")
        seccomp = own.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
        check(seccomp in ("RuntimeDefault", "Localhost"), f"{at_container}: the type of seccompProfile must be RuntimeDefault or Localhost")
        capabilities = own.get("capabilities", {})
        check("ALL" in capabilities.get("drop", []), f"{at_container}: the container must drop ALL capabilities")
        check(set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"}, f"{at_container}: the container may add only the capability NET_BIND_SERVICE")
        check(own.get("procMount", "Default") == "Default", f"{at_container}: procMount must be Default")
        check(not any(port.get("hostPort") for port in container.get("ports", [])), f"{at_container}: hostPort must not be set")
        # The following checks are stricter than the standard.
        check(own.get("readOnlyRootFilesystem") is True, f"{at_container}: readOnlyRootFilesystem must be true")
        check(spec.get("automountServiceAccountToken") is False, f"{at_container}: automountServiceAccountToken must be false")
        resources = container.get("resources", {})
        check({"cpu", "memory"} <= set(resources.get("requests", {})), f"{at_container}: the requests lack cpu or memory")
        check("memory" in resources.get("limits", {}), f"{at_container}: the limits lack memory")
        check(not re.search(r":latest$|^[^:@]+$", container["image"]), f"{at_container}: the image {container['image']} has no version: add a tag other than latest, or a digest")


def matches(selector, labels):
    return selector.items() <= labels.items()


def itself(things):
    """Checks that objects fit together: each name, label and port that one object uses belongs to another object."""
    of = lambda *kinds: [thing for thing in things if thing["kind"] in kinds]
    workloads = of("Deployment", "StatefulSet")
    namespaces = {thing["metadata"].get("namespace") for thing in things} - {None}
    check(len(namespaces) == 1, f"namespaces: {namespaces}")
    check({thing["metadata"]["name"] for thing in of("Namespace")} == namespaces, f"there must be exactly one Namespace object, for the namespace of all other objects: {namespaces}")
    for space in of("Namespace"):
        labels = space["metadata"]["labels"]
        check(labels.get("pod-security.kubernetes.io/enforce") == "restricted", "the namespace does not enforce the restricted Pod Security Standard")
    for thing in things:
        labels = thing["metadata"].get("labels", {})
        check({"app.kubernetes.io/name", "app.kubernetes.io/part-of"} <= set(labels), f"{name(thing)} lacks the labels of its application")
    pods = {name(work): work["spec"]["template"] for work in workloads}
    ports = {}
    for work in workloads:
        labels = work["spec"]["template"]["metadata"]["labels"]
        check(matches(work["spec"]["selector"]["matchLabels"], labels), f"{name(work)} does not select its own pods")
        for container in work["spec"]["template"]["spec"]["containers"]:
            for port in container.get("ports", []):
                ports[(name(work), port["name"])] = port["containerPort"]
    configs = {thing["metadata"]["name"]: thing.get("data", {}) for thing in of("ConfigMap")}
    secrets = {thing["metadata"]["name"] for thing in of("Secret")} | {"peerpigeon"}
    accounts = {thing["metadata"]["name"] for thing in of("ServiceAccount")} | {"default"}
    for work in workloads:
        spec = work["spec"]["template"]["spec"]
        check(spec.get("serviceAccountName", "default") in accounts, f"{name(work)}: its service account does not exist")
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                check(source["configMapRef"]["name"] in configs, f"{name(work)}: no such ConfigMap: {source}")
            for variable in container.get("env", []):
                secret = variable.get("valueFrom", {}).get("secretKeyRef")
                check(not secret or secret["name"] in secrets, f"{name(work)}: no such Secret: {secret}")
            own = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                ask = container.get(probe, {})
                ask = ask.get("httpGet") or ask.get("tcpSocket")
                check(not ask or ask["port"] in own, f"{name(work)}: {probe} uses a port that the container does not have: {ask}")
    selected = lambda selector: [at for at, pod in pods.items() if matches(selector, pod["metadata"]["labels"])]
    for service in of("Service"):
        chosen = selected(service["spec"]["selector"])
        # A headless Service may select the pods of several workloads. A Service with an address must select exactly one
        # workload: the hubs that serve peers, or Redis.
        check(len(chosen) == 1 or (chosen and service["spec"].get("clusterIP") == "None"), f"{name(service)} selects {chosen}")
        for port in service["spec"]["ports"]:
            check(all((at, port["targetPort"]) in ports for at in chosen), f"{name(service)}: its pods have no port {port}")
    for budget in of("PodDisruptionBudget"):
        check(len(selected(budget["spec"]["selector"]["matchLabels"])) == 1, f"{name(budget)} does not select exactly one workload")
    for ingress in of("Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                target = path["backend"]["service"]
                found = [s for s in of("Service") if s["metadata"]["name"] == target["name"]]
                names = [port["name"] for service in found for port in service["spec"]["ports"]]
                check(target["port"]["name"] in names, f"{name(ingress)} leads to a Service or a port that does not exist: {target}")
    for route in of("HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for target in rule["backendRefs"]:
                found = [s for s in of("Service") if s["metadata"]["name"] == target["name"]]
                numbers = [port["port"] for service in found for port in service["spec"]["ports"]]
                check(target["port"] in numbers, f"{name(route)} leads to a Service or a port that does not exist: {target}")
    for scaler in of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        found = [work for work in workloads if name(work) == f"{target['kind']}/{target['name']}"]
        check(len(found) == 1, f"{name(scaler)} scales a workload that does not exist: {target}")
        check(all("replicas" not in work["spec"] for work in found), f"{name(scaler)} scales a workload that also sets replicas: remove them")
    for monitor in of("PodMonitor"):
        chosen = selected(monitor["spec"]["selector"]["matchLabels"])
        hubs = [at for at, pod in pods.items() if pod["spec"]["containers"][0]["name"] == "hub"]
        check(chosen == hubs, f"{name(monitor)} selects {chosen} instead of the hubs")
        for end in monitor["spec"]["podMetricsEndpoints"]:
            check(all((at, end["port"]) in ports for at in chosen), f"{name(monitor)}: its pods have no port {end['port']}")
    policies(of("NetworkPolicy"), pods, ports)
    hubs = {work["metadata"]["name"]: work["spec"].get("replicas", 1) for work in workloads if is_hub(work)}
    hubs |= {scaler["spec"]["scaleTargetRef"]["name"]: scaler["spec"]["maxReplicas"] for scaler in of("HorizontalPodAutoscaler")}
    for work in filter(is_hub, workloads):
        told = configs[work["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]]
        hub(work, told, ports, of("Service"))
        bridge(work, of("NetworkPolicy"))
        room(work, told, sum(hubs.values()))


def policies(policies, pods, ports):
    """Checks that policies allow traffic only to existing ports, and that one policy denies all other traffic."""
    shut = [p for p in policies if p["spec"]["podSelector"] == {} and not p["spec"].get("ingress") and not p["spec"].get("egress")]
    check(any(set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"} for p in shut), "no policy denies all other traffic in the namespace")
    for policy in policies:
        who = policy["spec"]["podSelector"].get("matchLabels", {})
        if who == SOLVER:
            asked = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
            check(asked == [SOLVER_PORT], f"{name(policy)}: {asked}")
            continue
        chosen = [at for at, pod in pods.items() if matches(who, pod["metadata"]["labels"])]
        check(chosen, f"{name(policy)} selects no pod")
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                check(all((at, port["port"]) in {(w, n) for (w, _), n in ports.items()} for at in chosen), f"{name(policy)}: its pods have no port {port}")
        check("Egress" in policy["spec"]["policyTypes"] or "egress" not in policy["spec"], f"{name(policy)}: its policyTypes lack Egress")
        check("Ingress" in policy["spec"]["policyTypes"] or "ingress" not in policy["spec"], f"{name(policy)}: its policyTypes lack Ingress")


def is_hub(work):
    return work["spec"]["template"]["spec"]["containers"][0]["name"] == "hub"


def env(work):
    """Returns the variables of a hub that are not in the ConfigMap. A value from a Secret is None."""
    return {said["name"]: said.get("value") for said in work["spec"]["template"]["spec"]["containers"][0]["env"]}


def hub(work, told, ports, services):
    """Checks that a hub's settings match its manifests."""
    spec = work["spec"]["template"]["spec"]
    container = spec["containers"][0]
    for variable, port in (("PORT", "peers"), ("MESH_PORT", "mesh"), ("ADMIN_PORT", "admin")):
        check(int(told[variable]) == ports[(name(work), port)], f"{variable} differs from the port named {port}")
    host, port = told["MESH_DNS"].split(":")
    mesh = [service for service in services if service["metadata"]["name"] == host]
    check(mesh and mesh[0]["spec"].get("clusterIP") == "None", f"MESH_DNS: {host} is not a headless Service")
    check(mesh and mesh[0]["spec"].get("publishNotReadyAddresses"), f"MESH_DNS: {host} omits hubs that are not ready")
    check(mesh and mesh[0]["spec"]["ports"][0]["port"] == int(port), f"MESH_DNS: {host} has no port {port}")
    leaving = container["lifecycle"]["preStop"]["sleep"]["seconds"] + int(told["DRAIN_SECS"]) + HUB_END_SECS
    grace = spec["terminationGracePeriodSeconds"]
    check(grace > leaving, f"{name(work)}: a hub needs {leaving} s to stop, but terminationGracePeriodSeconds is {grace}")
    if work["spec"]["strategy"]["type"] == "RollingUpdate":
        check(work["spec"]["minReadySeconds"] >= leaving, f"minReadySeconds is less than the {leaving} s that a hub needs to stop, so two hubs would stop at once")
    check("HUB_ID" not in told, "HUB_ID must not be the same for all pods")
    for service in services:
        families = service["spec"].get("ipFamilies", ["IPv4"])
        single = service["spec"].get("ipFamilyPolicy", "SingleStack") == "SingleStack" and families == ["IPv4"]
        check(single or told["HOST"] != "0.0.0.0", f"{name(service)} has IPv6 addresses, at which HOST={told['HOST']} does not listen")
    for url in (env(work).get("MESH_LEGACY") or "").split(","):
        # Behind a proxy, all peers have the proxy's address. If MESH_LEGACY contained an address range, the hub would
        # treat these peers as hubs.
        check(not url or url.startswith(("ws://", "wss://")), f"{name(work)}: MESH_LEGACY contains {url}, which is not the URL of a hub")


def bridge(work, policies):
    if "REDIS_URL" not in env(work):
        return
    labels = work["spec"]["template"]["metadata"]["labels"]
    ways = [p for p in policies if p["spec"].get("egress") and matches(p["spec"]["podSelector"].get("matchLabels", {}), labels)]
    check(any(p["metadata"]["name"] in ("peerpigeon-to-bridge", "peerpigeon-to-redis") for p in ways), f"{name(work)}: no policy allows egress to REDIS_URL")


def room(work, told, hubs):
    """Checks that the memory limit is enough for the memory that memory.py estimates for the settings."""
    if "REDIS_URL" in env(work):
        # Redis connects a second cluster, which has the same number of hubs.
        hubs *= 2
    limit = work["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
    size = int(limit[:-2]) * {"Mi": 1 << 20, "Gi": 1 << 30}[limit[-2:]]
    needed = memory.needed(told, hubs)
    enough = memory.presence(told, hubs)
    check(enough <= int(told["MESH_PRESENCE_BYTES"]), f"{name(work)}: MESH_PRESENCE_BYTES is less than the {enough} that {hubs} hubs may need")
    check(needed <= size, f"{name(work)}: the limit of {limit} is less than the {needed / 1e6:.0f} MB that {hubs} hubs may need")


things = [thing for thing in yaml.safe_load_all(sys.stdin) if thing]
schemas(things, sys.argv[1:])
for thing in things:
    if thing["kind"] in ("Deployment", "StatefulSet"):
        restricted(thing, thing["spec"]["template"])
itself(things)
for problem in problems:
    print(f"  {problem}")
print(f"  {len(things)} objects, {len(problems)} problems, kubernetes-validate {metadata.version('kubernetes-validate')}")
sys.exit(bool(problems) or not things)
