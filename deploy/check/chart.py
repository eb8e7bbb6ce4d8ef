"""Renders the chart and checks it; see kubernetes.sh.

chart.py [--write]: --write renders deploy/kubernetes/quorate.yaml anew.
"""

import pathlib
import re
import sys

import kubernetes_validate
import yaml
from helm_python import HelmError
from helm_python.chart import Chart, lint

CHART = pathlib.Path("deploy/helm/quorate")
RENDERED = pathlib.Path("deploy/kubernetes/quorate.yaml")
HEAD = """\
# Three nodes of Quorate, with TLS, for kubectl apply. Rendered from deploy/helm/quorate with its default
# values by `deploy/check/kubernetes.sh --write`; change it there. deploy/README.md says what comes first.
"""
# What must render and be valid, and how many objects it has.
VARIANTS = {
    "as it is": ({}, 6),
    "one node without TLS": ({"replicas": 1, "insecure": True, "networkPolicy": {"enabled": False}}, 4),
    "five nodes, all that is optional": ({
        "replicas": 5,
        "image": {"repository": "registry.example/quorate", "tag": "1.2.3"},
        "imagePullSecrets": [{"name": "registry"}],
        "tls": {"certManager": {"enabled": True}},
        "config": {"QUORATE_RAFT__HEARTBEAT_MS": "250"},
        "storage": {"className": "fast"},
        "nodeSelector": {"disk": "nvme"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "priorityClassName": "high",
        "podAnnotations": {"a": "b"},
        "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
        "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]},
        "monitoring": {"serviceMonitor": True, "prometheusRule": True, "labels": {"release": "prometheus"}},
    }, 9),
}
# What the schema of the values must refuse.
REFUSED = [
    {"replicas": 4},
    {"replica": 3},
    {"terminationGracePeriodSeconds": 5},
    {"config": {"HEARTBEAT": "250"}},
    {"storage": {"size": "ten"}},
]
# Kinds of operators, of which Kubernetes has no schema.
FOREIGN = {"Certificate", "ServiceMonitor", "PrometheusRule"}


def render(chart, values):
    manifests = chart.render(values, name="quorate", namespace="quorate")
    texts = [text for name, text in sorted(manifests.items()) if name.endswith(".yaml")]
    parts = [part.strip("\n") for text in texts for part in re.split(r"(?m)^---\n", text)]
    parts = [part for part in parts if yaml.safe_load(part)]
    return [yaml.safe_load(part) for part in parts], "---\n" + "\n---\n".join(parts) + "\n"


def check_objects(title, objects):
    for it in objects:
        name = f"{title}: {it['kind']} {it['metadata']['name']}"
        assert it["metadata"]["namespace"] == "quorate", name
        if it["kind"] in FOREIGN:
            assert it["spec"], name
            continue
        try:
            kubernetes_validate.validate(it, "1.37", strict=True)
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
    by_kind = {it["kind"]: it for it in objects}
    nodes = by_kind["StatefulSet"]["spec"]
    pod = nodes["template"]["spec"]
    container = pod["containers"][0]
    assert nodes["podManagementPolicy"] == "Parallel", title
    assert pod["terminationGracePeriodSeconds"] >= 60, title
    assert "cpu" not in container["resources"]["limits"], title
    assert container["securityContext"]["readOnlyRootFilesystem"] is True, title
    services = [it for it in objects if it["kind"] == "Service"]
    headless = [it for it in services if it["spec"].get("publishNotReadyAddresses")]
    assert [it["metadata"]["name"] for it in headless] == [nodes["serviceName"]], title
    # What selects nodes finds them, and nothing else.
    labels = nodes["template"]["metadata"]["labels"]
    job = by_kind["Job"]["spec"]["template"]["metadata"]["labels"]
    for service in services:
        selector = service["spec"]["selector"].items()
        assert selector <= labels.items() and not selector <= job.items(), title
    endpoints = by_kind["Job"]["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
    assert endpoints.count(":7400") == nodes["replicas"], title


def main():
    report = lint(str(CHART))
    problems = [it["error"] for it in report["messages"] if it["severity"] >= 2] + report["errors"]
    if problems:
        sys.exit(f"lint: {problems}")
    with Chart.load(str(CHART)) as chart:
        for title, (values, count) in VARIANTS.items():
            objects, text = render(chart, values)
            assert len(objects) == count, f"{title}: {len(objects)} objects, not {count}"
            check_objects(title, objects)
            if not values:
                rendered = HEAD + text
        for values in REFUSED:
            try:
                render(chart, values)
            except HelmError:
                continue
            sys.exit(f"the schema lets this through: {values}")
    if "--write" in sys.argv:
        RENDERED.write_text(rendered)
    elif RENDERED.read_text() != rendered:
        sys.exit(f"{RENDERED} is not what the chart gives: deploy/check/kubernetes.sh --write")
    print(f"the chart is sound: {len(VARIANTS)} variants are valid, and {RENDERED} is what it gives")


main()
