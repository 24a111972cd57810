"""The Helm chart: what it renders fits the service that it starts, and gives it no more than it needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from artstore_grpc.cli.environment import known_variables, settings
from artstore_grpc.rpc.health import LIVENESS, READINESS
from artstore_grpc.telemetry.catalogue import FAMILIES
from tests.deploy.charts import CHART, ROOT, Rendered, check, environment_of, render
from tests.deploy.rules import RULES, jobs

pytestmark = pytest.mark.slow
VALUES = tuple(sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))


@pytest.fixture(scope="module", params=VALUES)
def rendered(request: pytest.FixtureRequest) -> Rendered:
    """Of each file of values that is checked by `make lint`."""
    return render(CHART / f"ci/{request.param}.yaml")


@pytest.fixture(scope="module")
def everything() -> Rendered:
    return render(CHART / "ci/everything.yaml")


def failing(tmp_path: Path, **values: Any) -> str:
    """What the chart says to the required values with these over them."""
    given = yaml.safe_load((CHART / "ci/required.yaml").read_text())
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(given | values))
    done = check("--render", tmp_path / "values.yaml")
    assert done.returncode, "it rendered"
    return done.stderr


def test_one_version() -> None:
    """Of the project, of the chart, and of the image that it starts."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], str(chart["appVersion"])) == (version, version)
    required = render(CHART / "ci/required.yaml")
    assert {required.container(kind)["image"] for kind in ("Deployment", "Job")} == {f"artstore-grpc:{version}"}


def test_every_variable_is_a_setting() -> None:
    """Wherever in the chart one is written, in a template, a comment or a value."""
    for path in CHART.rglob("*"):
        if path.is_file() and path.suffix in {".yaml", ".tpl", ".txt"}:
            mentioned = set(re.findall(r"\bARTSTORE_[A-Z_]*[A-Z]\b", path.read_text()))
            assert mentioned <= set(known_variables()), path.name


def test_what_is_rendered_is_a_configuration(rendered: Rendered, tmp_path: Path) -> None:
    """The settings parse, all of them, and contradict each other nowhere; secrets come from files alone."""
    container = rendered.container()
    given = environment_of(container)
    for name in [each for each in given if given[each].startswith("/run/secrets/")]:
        assert name.endswith("_FILE")
        path = tmp_path / Path(given[name]).name
        scheme = "postgresql" if "DATABASE" in name else "redis"
        path.write_text("A" * 43 + "=" if "KEY" in name else f"{scheme}://host/0")
        given[name] = str(path)
    made = settings({name: value for name, value in given.items() if name.startswith("ARTSTORE_")})
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    bound = {
        "grpc": made.grpc_address,
        "http": made.gateway_address,
        "metrics": made.metrics_address,
        "health": made.health_address,
        "grpc-mtls": made.grpc_mtls_address,
    }
    assert ports == {name: address.port for name, address in bound.items() if address}


def test_probes_ask_for_what_is_served(rendered: Rendered) -> None:
    """By a port that speaks plain text, and for states that the service has; a start is not asked to be ready."""
    container = rendered.container()
    port = int(environment_of(container)["ARTSTORE_HEALTH_ADDRESS"].rpartition(":")[2])
    asked = {name: container[f"{name}Probe"]["grpc"] for name in ("startup", "liveness", "readiness")}
    assert {each["port"] for each in asked.values()} == {port}
    assert asked["startup"]["service"] == asked["liveness"]["service"] == "liveness" in LIVENESS
    assert asked["readiness"]["service"] == READINESS


def test_services_reach_ports_that_there_are(rendered: Rendered) -> None:
    """By name; their selectors are labels of the pods that serve, and of no pod that migrates."""
    pod = rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    ports = {each["name"]: each["containerPort"] for each in rendered.container()["ports"]}
    for service in (each for each in rendered.objects if each["kind"] == "Service"):
        assert service["spec"]["selector"].items() <= pod.items()
        assert all(ports[each["targetPort"]] == each["port"] for each in service["spec"]["ports"])
        if "Job" in rendered.kinds():
            other = rendered.one("Job")["spec"]["template"]["metadata"]["labels"]
            assert not service["spec"]["selector"].items() <= other.items()


def test_the_selector_never_changes() -> None:
    """Kubernetes refuses an upgrade that changes it: it holds no version."""
    selector = render(CHART / "ci/required.yaml").one("Deployment")["spec"]["selector"]["matchLabels"]
    assert set(selector) == {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}


@pytest.mark.parametrize("drain", [{}, {"delaySeconds": 60, "graceSeconds": 120}])
def test_nobody_is_killed_who_drains(tmp_path: Path, drain: dict[str, int]) -> None:
    """The pod is given longer than the service takes."""
    values = yaml.safe_load((CHART / "ci/required.yaml").read_text())
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values | {"drain": drain}))
    made = render(tmp_path / "values.yaml")
    given = environment_of(made.container())
    needed = int(given["ARTSTORE_DRAIN_DELAY"]) + int(given["ARTSTORE_DRAIN_GRACE"])
    assert made.pod()["terminationGracePeriodSeconds"] >= needed + 5
    assert "lifecycle" not in made.container()


def test_no_power(rendered: Rendered) -> None:
    """Not root, a root that can't be written, no capabilities, no token of the cluster unless a sink needs it."""
    for kind in {"Deployment", "Job"} & rendered.kinds():
        pod, container = rendered.pod(kind), rendered.container(kind)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod["automountServiceAccountToken"] is ("Role" in rendered.kinds() and kind == "Deployment")
        assert all(each.get("readOnly") for each in container["volumeMounts"] if each["name"] in ("secrets", "tls"))


def test_no_secret_is_in_the_chart(rendered: Rendered) -> None:
    """It makes no Secret, and no ConfigMap or variable holds what a Secret should: all are named."""
    assert "Secret" not in rendered.kinds()
    text = str(rendered.objects)
    assert not re.search(r"(postgresql|rediss?)://", text)
    for kind in {"Deployment", "Job"} & rendered.kinds():
        for name in environment_of(rendered.container(kind)):
            assert name.endswith("_FILE") or not re.search("PASSWORD|SECRET|KEY|URL$", name), name


def test_numbers_are_as_the_service_reads_them(everything: Rendered) -> None:
    """Helm has whole numbers as floats, of which a million would be `1e+06`."""
    environment = environment_of(everything.container())
    assert {
        name: environment[f"ARTSTORE_{name}"] for name in ("SOURCE_FAILURES", "MAX_IN_FLIGHT", "TRACES_SAMPLE")
    } == {
        "SOURCE_FAILURES": "1000000",
        "MAX_IN_FLIGHT": "500",
        "TRACES_SAMPLE": "0.05",
    }


def test_the_roles_are_split(everything: Rendered) -> None:
    """The pods that serve are not given the URL of the role that migrates."""
    sources = {kind: everything.pod(kind)["volumes"][0]["projected"]["sources"] for kind in ("Deployment", "Job")}
    keys = {kind: each[0]["secret"]["items"][0]["key"] for kind, each in sources.items()}
    assert keys == {"Deployment": "run-url", "Job": "owner-url"}
    assert "owner-url" not in str(sources["Deployment"])


def test_the_migration_comes_first(everything: Rendered) -> None:
    job = everything.one("Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert everything.container("Job")["args"] == ["db", "upgrade", "--run-role", "artstore_run"]
    assert "serviceAccountName" not in everything.pod("Job"), "the chart's own isn't there yet"


def test_the_policies_cover_every_port(everything: Rendered) -> None:
    """But the probes', which the node alone asks; the metrics are for another rule than the doors."""
    rules = everything.one("NetworkPolicy", "identity")["spec"]["ingress"]
    opened = [{port["port"] for port in rule["ports"]} for rule in rules]
    assert opened == [{"grpc", "http", "grpc-mtls"}, {"metrics"}]


def test_the_migration_has_a_policy_before_it_has_a_pod(everything: Rendered) -> None:
    """It is a hook like the Job, of a smaller weight; in comes nothing, and out goes what the service may, but for
    Redis, whose URL it isn't given either."""
    policy, job = everything.one("NetworkPolicy", "-migrate"), everything.one("Job")
    hooks = [each["metadata"]["annotations"] for each in (policy, job)]
    assert len({each["helm.sh/hook"] for each in hooks}) == 1
    weights = [int(each.get("helm.sh/hook-weight", 0)) for each in hooks]
    assert weights[0] < weights[1]
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy["spec"]
    served = everything.one("NetworkPolicy", "identity")["spec"]
    assert not served["podSelector"]["matchLabels"].items() <= labels.items()
    redis = [each for each in served["egress"] if each["ports"][0]["port"] == 6379]
    assert len(redis) == 1
    assert policy["spec"]["egress"] == [each for each in served["egress"] if each not in redis]
    assert "redis_url" not in str(everything.pod("Job"))


def test_a_scaler_owns_the_number_of_pods(everything: Rendered) -> None:
    """Then the Deployment names none: an upgrade would undo what the scaler did."""
    assert "replicas" not in everything.one("Deployment")["spec"]
    metrics = everything.one("HorizontalPodAutoscaler")["spec"]["metrics"]
    assert [each["type"] for each in metrics] == ["Resource", "Pods"]
    assert metrics[1]["pods"]["metric"]["name"] in {family.name for family in FAMILIES}


def test_prometheus_finds_the_port(everything: Rendered) -> None:
    """The ServiceMonitor's labels are those of one Service, which has the port that it names."""
    monitor = everything.one("ServiceMonitor")["spec"]
    wanted = monitor["selector"]["matchLabels"].items()
    services = [each for each in everything.objects if each["kind"] == "Service"]
    (found,) = [each for each in services if wanted <= each["metadata"]["labels"].items()]
    assert monitor["endpoints"][0]["port"] in {each["name"] for each in found["spec"]["ports"]}


def test_the_rules_and_dashboards_are_those_of_the_repository(everything: Rendered) -> None:
    """The chart has links to them, and what it renders is what they lead to."""
    assert everything.one("PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())
    maps = [each for each in everything.objects if "grafana_dashboard" in each["metadata"]["labels"]]
    dashboards = {path.name: path.read_text() for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    assert {name: text for each in maps for name, text in each["data"].items()} == dashboards


@pytest.mark.parametrize("names", [{}, {"nameOverride": "tokens", "fullnameOverride": "tokens"}])
def test_the_rules_are_for_the_job_of_the_chart(tmp_path: Path, names: dict[str, str]) -> None:
    """Whatever its objects are called; of each installation in a cluster it is another job, since rules compare the
    instances of one."""
    values = yaml.safe_load((CHART / "ci/everything.yaml").read_text())
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values | names))
    monitor = render(tmp_path / "values.yaml").one("ServiceMonitor")["spec"]
    (relabelled,) = monitor["endpoints"][0]["relabelings"]
    assert relabelled["targetLabel"] == "job"
    assert all(each.admits(relabelled["replacement"]) for each in jobs())
    assert relabelled["replacement"].startswith("artstore/identity-"), "the namespace's and the release's names"


def test_what_the_chart_gives_is_no_setting_of_the_values(everything: Rendered) -> None:
    """Each variable that it renders by itself is refused among `settings`, where it would be there twice."""
    listed = re.search(r"has \$name \(list (.*?)\)", (CHART / "templates/_pod.tpl").read_text())
    assert listed
    refused = {f"ARTSTORE_{name}" for name in re.findall(r"\w+", listed[1])}
    assert refused <= set(known_variables())
    values = yaml.safe_load((CHART / "ci/everything.yaml").read_text())["settings"]
    given = {name for kind in ("Deployment", "Job") for name in environment_of(everything.container(kind))}
    own = {name for name in given if name.startswith("ARTSTORE_")} - {f"ARTSTORE_{name}" for name in values}
    assert own <= refused


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"issuer": ""}, "issuer must be given"),
        ({"issuer": "https://identity.example/"}, "issuer"),
        ({"tls": {}}, "tls.secretName must be given"),
        ({"tls": {"secretName": "a", "insecurePublic": True}}, "not both"),
        ({"tls": {"secretName": "a", "mutual": {"enabled": True}}}, "clientCaConfigMap"),
        ({"secrets": {"database": {"name": "a"}, "migration": {"name": "a"}}}, "keyEncryptionKey"),
        ({"secrets": {"database": {"name": "a"}, "keyEncryptionKey": {"name": "a"}}}, "secrets.migration.name"),
        ({"settings": {"GRPC_ADDRESS": "0.0.0.0:1"}}, "settings.GRPC_ADDRESS is the chart's own"),
        ({"settings": {"ARTSTORE_LOG_LEVEL": "debug"}}, "invalid propertyName 'ARTSTORE_LOG_LEVEL'"),
        ({"replica": 3}, "replica"),
        ({"environment": "production"}, "environment"),
    ],
)
def test_what_can_not_work_is_refused(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    """By Helm, before anything is installed, in a sentence that says what to mend."""
    assert said in failing(tmp_path, **values)
