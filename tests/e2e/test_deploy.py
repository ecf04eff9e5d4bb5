"""The files of `deploy/` say what Compose, Kubernetes and the service itself understand."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from incatalog.flags import parse
from incatalog.serving.address import check_address, is_url
from incatalog.serving.settings import ServeSettings

_ROOT = Path(__file__).resolve().parents[2]
_DEPLOY = _ROOT / "deploy"


def manifests() -> list[Any]:
    return list(yaml.safe_load_all((_DEPLOY / "kubernetes/incatalog.yaml").read_text()))


def composed(name: str) -> Any:
    return yaml.safe_load((_ROOT / name).read_text())["services"]


def settings(flags: list[str]) -> ServeSettings:
    return parse("serve", ServeSettings, flags)


def test_kubernetes_takes_the_manifests_and_would_not_take_others() -> None:
    kubernetes_validate = pytest.importorskip(
        "kubernetes_validate", reason="pip install kubernetes-validate"
    )
    newest = kubernetes_validate.latest_version()
    kinds = []
    for one in manifests():
        kubernetes_validate.validate(one, newest, strict=True)
        kinds.append(one["kind"])
    assert kinds == ["Deployment", "Service", "PodDisruptionBudget"]
    wrong = manifests()[0]
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, newest, strict=True)


def test_the_parts_of_the_manifests_find_each_other() -> None:
    deployment, service, budget = manifests()
    pod = deployment["spec"]["template"]
    labels = pod["metadata"]["labels"]
    for selector in (deployment["spec"]["selector"], budget["spec"]["selector"]):
        assert selector["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    [container] = pod["spec"]["containers"]
    assert {m["name"] for m in container["volumeMounts"]} == {
        v["name"] for v in pod["spec"]["volumes"]
    }
    assert container["command"] == ["incatalog", "serve"]
    given = settings(container["args"])
    assert [port["containerPort"] for port in container["ports"]] == [given.port]
    # What was accepted has its time to end.
    assert pod["spec"]["terminationGracePeriodSeconds"] > given.timeout
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]


def test_every_service_shares_state_and_sessions() -> None:
    [container] = manifests()[0]["spec"]["template"]["spec"]["containers"]
    for flags in (
        container["args"],
        composed("deploy/replicas/compose.yaml")["incatalog"]["command"],
    ):
        given = settings(flags)
        for name in ("state", "sessions"):
            address = getattr(given, name)
            check_address(f"--{name}", address)
            assert is_url(address)
        assert given.keys is not None


def test_compose_files_name_what_is_there() -> None:
    for name in ("compose.yaml", "deploy/replicas/compose.yaml"):
        services = composed(name)
        given = settings(services["incatalog"]["command"])
        assert dataclasses.asdict(given)["domain"] == ("movies=/runs/study/data",)
        for service in services.values():
            for volume in service.get("volumes", ()):
                source = volume.split(":")[0]
                if source.startswith("./") and source != "./runs":
                    assert (_ROOT / source).exists()
    services = composed("deploy/replicas/compose.yaml")
    assert services["incatalog"]["deploy"]["replicas"] == 2
    proxied = (_DEPLOY / "replicas/nginx.conf").read_text()
    [(upstream, port)] = re.findall(r"server (\w+):(\d+) resolve", proxied)
    assert upstream in services
    assert int(port) == ServeSettings(Path("m")).port
    [host] = re.findall(r"Host (\w+);", proxied)
    assert f"--allow-host={host}" in services["incatalog"]["command"]
