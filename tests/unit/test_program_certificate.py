"""The certificate in the program: the load balancer's IAM role, its scripts, and where the private key appears."""

import datetime
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.unit.program import Run, run, without_secrets

REMOTE = "command:remote:Command"
STORE = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:ant-media-cluster-unit-certificate-AbCdEf"


def acme(**settings: object) -> dict[str, object]:
    return {"email": "operator@ant-media.test", **settings}


def scripts(cluster: Run) -> dict[str, str]:
    """Returns the command lines of the certificate scripts, without sudo and timeout."""
    return {
        name: inputs["create"].partition("/usr/local/lib/ant-media-cluster/")[2].partition("  #")[0]
        for name, inputs in cluster.of_type(REMOTE).items()
        if "certificate" in name and not name.endswith("-in-service")
    }


def permissions(cluster: Run) -> list[dict[str, Any]]:
    (policy,) = cluster.of_type("aws:iam/rolePolicy:RolePolicy").values()
    return json.loads(policy["policy"])["Statement"]


def test_only_the_load_balancer_has_a_role_which_allows_only_its_secret() -> None:
    cluster = run()
    profiles = {
        name: inputs.get("iamInstanceProfile")
        for name, inputs in cluster.of_type("aws:ec2/instance:Instance").items()
    }
    assert {name for name, profile in profiles.items() if profile} == {"load-balancer"}
    assert permissions(cluster) == [
        {
            "Effect": "Allow",
            "Action": ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"],
            "Resource": STORE,
        }
    ]
    # docs/aws limits the deploy role to names with this prefix.
    for kind in ("iam/role:Role", "iam/instanceProfile:InstanceProfile", "secretsmanager/secret:Secret"):
        (inputs,) = cluster.of_type(f"aws:{kind}").values()
        assert inputs["name"].startswith("ant-media-cluster-unit-"), kind


def test_stored_certificate_is_restored_before_one_is_ordered() -> None:
    assert scripts(run()) == {
        "service-kept-certificate": f"restore-certificate.sh {STORE}",
        "service-certificate": (
            "issue-certificate.sh --email operator@ant-media.test"
            " --directory https://acme-v02.api.letsencrypt.org/directory --key-type ecdsa --challenge http-01"
            " --address 198.51.100.1 live.ant-media.test"
        ),
    }


def test_names_and_key_type_appear_in_the_command_that_previews_show() -> None:
    cluster = run(acme=acme(names=["www.ant-media.test", "live.elsewhere.test"], keyType="rsa"))
    command = scripts(cluster)["service-certificate"]
    assert "--key-type rsa" in command
    assert command.endswith("198.51.100.1 live.ant-media.test www.ant-media.test live.elsewhere.test")


def test_other_settings_do_not_run_the_commands_of_the_certificate_again() -> None:
    def commands(cluster: Run) -> dict[str, dict[str, Any]]:
        return {
            name: inputs
            for name, inputs in cluster.of_type(REMOTE).items()
            if name.startswith("service-certificate")
        }

    before, after = (
        run(),
        run(hstsMaxAge=600, applications=["LiveApp"], statisticsPassword="another-password"),
    )
    assert len(commands(before)) == 2
    assert commands(after) == commands(before)


def test_names_in_the_zone_get_a_records_except_wildcards() -> None:
    cluster = run(
        route53Zone="ant-media.test",
        acme=acme(challenge="dns-01", names=["*.eu.ant-media.test", "www.ant-media.test"]),
    )
    records = cluster.of_type("aws:route53/record:Record").values()
    assert sorted((record["name"], record["type"], *record["records"]) for record in records) == [
        ("live.ant-media.test", "A", "198.51.100.1"),
        ("www.ant-media.test", "A", "198.51.100.1"),
    ]
    assert not run().of_type("aws:route53/record:Record")


def test_dns_01_allows_only_the_challenge_records() -> None:
    cluster = run(route53Zone="ant-media.test", acme=acme(challenge="dns-01", names=["*.eu.ant-media.test"]))
    assert {
        "Effect": "Allow",
        "Action": "route53:ChangeResourceRecordSets",
        "Resource": "arn:aws:route53:::hostedzone/ZONE",
        "Condition": {
            "ForAllValues:StringEquals": {
                "route53:ChangeResourceRecordSetsNormalizedRecordNames": [
                    "_acme-challenge.eu.ant-media.test",
                    "_acme-challenge.live.ant-media.test",
                ],
                "route53:ChangeResourceRecordSetsRecordTypes": ["TXT"],
            }
        },
    } in permissions(cluster)


def test_own_certificate_needs_no_role_and_its_key_stays_secret() -> None:
    chain, key = own_certificate()
    cluster = run(acme=None, tls={"certificate": chain, "privateKey": key})
    assert not [
        resource for resource in cluster.resources if resource.typ.startswith(("aws:iam", "aws:secret"))
    ]
    (command,) = scripts(cluster).values()
    assert command.startswith("use-certificate.sh --sha256 ")
    assert key not in json.dumps([without_secrets(resource.inputs) for resource in cluster.resources])
    (check,) = cluster.of_type("command:local:Command").values()
    assert check["environment"]["TRUST"].strip() == chain.strip()


def own_certificate() -> tuple[str, str]:
    """Returns a self-signed certificate for the domain and its key, as PEM texts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "live.ant-media.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("live.ant-media.test")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private.decode()
