"""A script that changes a machine, and fails or is killed in its middle, completes when it runs again.

The next `pulumi up` runs it again, whatever the settings then are: test_command.py shows that with the real engine, and
test_program.py for every script of the program. Tests of a single machine interrupt six scripts: test_set_up_media_node.py (also
set-server-settings.py), test_media_server.py (install-ant-media-server.sh), test_ant_media.py (set-app-settings.py), test_registry_scripts.py
(restore-registry.sh) and test_run_hook.py.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from cluster.machine_scripts import INSTALLED_SCRIPTS
from tests.e2e.clients import Client
from tests.e2e.cluster_certificate import ClusterCertificate
from tests.e2e.cluster_nodes import wait_until_no_problems
from tests.e2e.running_cluster import DOMAIN, Cluster, CommandResult
from tests.e2e.user_certificate import issue_user_certificate
from tests.project import PROJECT

# Bash reads this file before a script, which then ends before the first command that matches a pattern.
INJECTION = r"""
[[ ${0##*/} == "$SCRIPT" ]] || return 0
set -T
trap '[[ $BASH_COMMAND != $AT || -e /run/injected ]] || { touch /run/injected; [[ $HOW == fail ]] && exit 1; kill -KILL $$; }' DEBUG
"""
DRAIN = f"{INSTALLED_SCRIPTS}/drain-server.sh edge1 60 another-setup"
LOSE_FILES_OF_CERTBOT = "rm -r /etc/letsencrypt/live"
OTHER_CERTIFICATE = """
cd /run; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=somebody \\
  -keyout key -out certificate 2>/dev/null; cat certificate key >/etc/haproxy/certs/cluster.pem; systemctl reload haproxy
"""
LOSE_UNITS = """
systemctl mask --now haproxy prometheus-node-exporter haproxy-ticket-keys.timer
rm -rf /etc/systemd/system/{certbot,prometheus-node-exporter}.service.d /etc/systemd/system/haproxy-ticket-keys.service
rm -rf /etc/default/haproxy /run/haproxy-tls
"""


@dataclass(frozen=True)
class Step:
    """A command on a machine and its standard input, as `pulumi up` runs it."""

    command: str
    stdin: str = ""


def with_password(step: Step) -> Step:
    return Step(step.command, "another-password-of-the-settings\n")


def with_another_frontend(step: Step) -> Step:
    frontend = "\nfrontend another from http\n    bind :7777\n    http-request return status 200\n"
    return Step(step.command, step.stdin + frontend)


def with_rsa_key(step: Step) -> Step:
    return Step(step.command.replace("ecdsa", "rsa"), step.stdin)


def with_own_certificate(_: Step) -> Step:
    certificate = issue_user_certificate(DOMAIN)
    return Step(f"{INSTALLED_SCRIPTS}/use-certificate.sh", certificate.chain + certificate.private_key)


def with_another_setup(_: Step) -> Step:
    return Step(DRAIN)


def without_edge1(step: Step) -> Step:
    assert " edge1" in step.command
    return Step(step.command.replace(" edge1", ""))


@dataclass(frozen=True)
class Interruption:
    """A script that fails or is killed before a command, and the steps of the next update."""

    script: str
    machine: str
    how: str
    """`fail` or `kill`."""
    before: str
    """Pattern of the command."""
    steps: Sequence[str]
    """Resources. The first one is interrupted; the next update runs all of them."""
    prepare: str = "true"
    """A command that gives the first step something to do."""
    change: Callable[[Step], Step] = lambda step: step
    """What the settings of the interrupted update change. The next update has the former settings."""


BALANCER = "load-balancer"
CERTIFICATE = ("service-kept-certificate", "service-certificate", "service-certificate-in-service")
INTERRUPTIONS = (
    Interruption("install-scripts.sh", "edge2", "kill", "mv *", ["edge2-scripts"]),
    Interruption(
        "configure-system.sh",
        "edge2",
        "kill",
        "sysctl *",
        ["edge2-scripts"],
        "rm -r /etc/needrestart /etc/sysctl.d/90-ant-media-cluster.conf /etc/apt/apt.conf.d/90ant-media-cluster",
    ),
    Interruption(
        "install-node-exporter.sh",
        "edge2",
        "kill",
        "start_units*",
        ["edge2-node-exporter"],
        "systemctl stop prometheus-node-exporter; rm -r /etc/systemd/system/prometheus-node-exporter.service.d",
    ),
    Interruption(
        "install-valkey.sh",
        "database",
        "fail",
        "systemctl restart*",
        ["database-valkey"],
        "systemctl stop valkey-server",
    ),
    Interruption(
        "set-up-registry-proxy.sh",
        "edge2",
        "kill",
        "*unmask*",
        ["edge2-registry-proxy"],
        "systemctl mask --now haproxy; rm /etc/haproxy/haproxy.cfg",
    ),
    Interruption(
        "set-registry-password.sh",
        "database",
        "kill",
        "wait_for_valkey",
        ["database-password", "database-only-password"],
        change=with_password,
    ),
    Interruption(
        "install-haproxy.sh", BALANCER, "kill", "configure_renewals", ["load-balancer-haproxy"], LOSE_UNITS
    ),
    Interruption(
        "set-statistics-password.sh",
        BALANCER,
        "kill",
        "*reload-haproxy.sh*",
        ["load-balancer-credentials"],
        change=with_password,
    ),
    Interruption("certificate-store.sh", BALANCER, "kill", "mv *part*", CERTIFICATE, LOSE_FILES_OF_CERTBOT),
    Interruption(
        "restore-certificate.sh", BALANCER, "fail", "*deploy-certificate.sh*", CERTIFICATE, OTHER_CERTIFICATE
    ),
    Interruption(
        "apply-haproxy-config.sh",
        BALANCER,
        "kill",
        "verify_ports",
        ["service-configuration"],
        change=with_another_frontend,
    ),
    Interruption(
        "reload-haproxy.sh",
        BALANCER,
        "fail",
        "answer=*",
        ["service-configuration"],
        change=with_another_frontend,
    ),
    Interruption(
        "issue-certificate.sh",
        BALANCER,
        "kill",
        "request_certificate",
        CERTIFICATE[1:],
        change=with_rsa_key,
    ),
    Interruption(
        "deploy-certificate.sh",
        BALANCER,
        "fail",
        "*record-certificate.sh*",
        CERTIFICATE[2:],
        OTHER_CERTIFICATE,
    ),
    Interruption(
        "put-certificate.sh", BALANCER, "kill", "answer=*commit*", CERTIFICATE[2:], OTHER_CERTIFICATE
    ),
    Interruption(
        "use-certificate.sh", BALANCER, "kill", "rm *store*", CERTIFICATE, change=with_own_certificate
    ),
    Interruption(
        "drain-server.sh",
        BALANCER,
        "kill",
        "wait *process*",
        ["edge1-drain", "edge1-in-service"],
        change=with_another_setup,
    ),
    Interruption(
        "drain-removed-servers.sh",
        BALANCER,
        "kill",
        "wait *process*",
        ["service-removed-servers", "service-servers"],
        change=without_edge1,
    ),
    Interruption("return-server.sh", BALANCER, "fail", "systemctl stop*", ["edge1-in-service"], DRAIN),
    Interruption(
        # A server without a record of its settings would be drained for real by the next update that runs its drain.
        "wait-for-servers.sh",
        BALANCER,
        "kill",
        "wait",
        ["service-servers", "edge1-in-service"],
        DRAIN,
    ),
)
# They change nothing, or nothing but what the next run of their timer or their caller changes, or other tests interrupt them.
NOT_INTERRUPTED = {
    "back-up-registry.sh",
    "check-disk-space.sh",
    "close-dead-connections.sh",
    "find-drift.sh",
    "finish-uploads.sh",
    "haproxy-servers.sh",
    "install-ant-media-server.sh",
    "keep-registry.py",
    "management_api.py",
    "prelude.sh",
    "record-certificate.sh",
    "restore-haproxy-config.sh",
    "restore-registry.sh",
    "rotate-ticket-keys.sh",
    "run-hook.sh",
    "set-app-settings.py",
    "set-server-settings.py",
    "set-up-media-node.sh",
    "show-registry.sh",
    "show-standby.sh",
    "show-server.py",
    "valkey.sh",
}


def test_every_script_of_a_machine_is_interrupted() -> None:
    folder = PROJECT / "templates/scripts"
    scripts = {path.name for path in folder.glob("*/*.*") if path.parent.name != "operator"}
    assert scripts == {interruption.script for interruption in INTERRUPTIONS} | NOT_INTERRUPTED


@pytest.fixture(scope="module")
def steps(cluster: Cluster) -> dict[str, Step]:
    """The remote commands in the stack's state, by resource."""
    exported = cluster.pulumi("stack", "export", "--show-secrets").check()
    resources = json.loads(exported)["deployment"]["resources"]
    return {
        resource["urn"].rpartition("::")[2]: Step(
            resource["inputs"]["create"].replace("sudo ", "", 1), read_text(resource["inputs"].get("stdin"))
        )
        for resource in resources
        if resource["type"] == "command:remote:Command"
    }


def read_text(value: str | dict[str, str] | None) -> str:
    """Returns an input's text, of a secret too."""
    text: str = json.loads(value["plaintext"]) if isinstance(value, dict) else value or ""
    return text


def run_step(cluster: Cluster, machine: str, step: Step, environment: str = "") -> CommandResult:
    command = f"export SUDO_USER=pulumi\n{environment}\n{step.command}\n"
    return cluster.run_on(machine, "bash", "-c", command, input=step.stdin)


def prepare_interruption(cluster: Cluster, interruption: Interruption) -> str:
    """Returns the environment in which the script is interrupted."""
    cluster.run_on(interruption.machine, "tee", "/run/injection", input=INJECTION).check()
    cluster.run_on(interruption.machine, "bash", "-c", f"rm -f /run/injected\n{interruption.prepare}").check()
    # The provider runs the text of install-scripts.sh, so it has no file name.
    script = "" if interruption.script == "install-scripts.sh" else interruption.script
    return f"export BASH_ENV=/run/injection SCRIPT={script} HOW={interruption.how} AT='{interruption.before}'"


@pytest.mark.parametrize("interruption", INTERRUPTIONS, ids=lambda interruption: interruption.script)
def test_interrupted_script_completes_when_it_runs_again(
    cluster: Cluster,
    operator_client: Client,
    steps: dict[str, Step],
    interruption: Interruption,
) -> None:
    first = interruption.change(steps[interruption.steps[0]])
    environment = prepare_interruption(cluster, interruption)
    interrupted = run_step(cluster, interruption.machine, first, environment)
    cluster.run_on(interruption.machine, "rm", "/run/injected").check()  # It was.
    for name in interruption.steps:
        again = run_step(cluster, interruption.machine, steps[name])
        assert again.exit_code == 0, f"{name}: {again.output}\nInterrupted: {interrupted.output}"
    for url in (f"https://{DOMAIN}/LiveApp/", f"https://{DOMAIN}:5443/LiveApp/"):
        assert operator_client.get(url).status == 200


def test_drift_reports_neither_interruptions_nor_a_renewed_certificate_nor_what_an_update_reverted(
    cluster: Cluster, certificate: ClusterCertificate
) -> None:
    """The update is that of test_drift.py."""
    certificate.force_renewal()
    drift = cluster.run("make", "--silent", "drift")
    assert drift.output == "Nothing differs from the state.\n"
    assert drift.exit_code == 0
    wait_until_no_problems(cluster)
