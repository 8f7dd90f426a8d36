"""AWS's own failures, in the words of boto3, the provider and Pulumi's S3 backend."""

import subprocess

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    UnauthorizedSSOTokenError,
)

from operations.aws_failures import explain_aws_error, find_aws_failure
from operations.command_line import run_command


def client_error(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "DescribeInstances")


EXPIRED, NONE, INVALID, DENIED, THROTTLED, SILENT = (
    "the AWS session has expired",
    "there are no AWS credentials",
    "AWS does not accept the credentials",
    "AWS refuses a call for lack of permission",
    "AWS limits the rate of calls",
    "AWS does not answer",
)


@pytest.mark.parametrize(
    ("error", "summary"),
    [
        (client_error("RequestExpired", "Request has expired."), f"{EXPIRED} (DescribeInstances)"),
        (client_error("ExpiredToken", "The security token included in the request is expired"), f"{EXPIRED} (DescribeInstances)"),
        (SSOTokenLoadError(error_msg="Token for s does not exist"), EXPIRED),
        (UnauthorizedSSOTokenError(), EXPIRED),
        (NoCredentialsError(), NONE),
        (ProfileNotFound(profile="dev"), NONE),
        (client_error("AuthFailure", "AWS was not able to validate the provided access credentials"), f"{INVALID} (DescribeInstances)"),
        (client_error("UnauthorizedOperation", "You are not authorized to perform this operation. Encoded authorization failure message: aGk="), f"{DENIED} (DescribeInstances)"),
        (client_error("RequestLimitExceeded", "Request limit exceeded."), f"{THROTTLED} (DescribeInstances)"),
        (EndpointConnectionError(endpoint_url="https://ec2.eu-west-1.amazonaws.com"), SILENT),
        (ConnectTimeoutError(endpoint_url="https://ec2.eu-west-1.amazonaws.com"), SILENT),
    ],
)  # fmt: skip
def test_error_of_boto3_is_explained_with_a_remedy(error: Exception, summary: str) -> None:
    explained = explain_aws_error(error)
    assert explained.startswith(f"{summary}: ")
    assert "\n" not in explained


def test_other_error_of_boto3_keeps_its_words() -> None:
    error = client_error("InvalidInstanceID.NotFound", "The instance ID 'i-1' does not exist")
    assert explain_aws_error(error) == str(error)


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("Invalid credentials configured. Please see https://registry… : No valid credential sources found", NONE),
        ("operation error EC2: DescribeInstances, https response error StatusCode: 400, RequestID: 1, api error ExpiredToken: x", f"{EXPIRED} (ec2:DescribeInstances)"),
        ("reading IAM Role (x): operation error IAM: GetRole, https response error StatusCode: 403, api error AccessDenied: User: arn:aws:sts::1:assumed-role/ci/x is not authorized to perform: iam:GetRole on resource: y", f"{DENIED} (iam:GetRole)"),
        ("operation error EC2: DescribeVpcs, exceeded maximum number of attempts, 25, api error RequestLimitExceeded: Request limit exceeded.", f"{THROTTLED} (ec2:DescribeVpcs)"),
        ('error: read ".pulumi/meta.yaml": blob (code=Unknown): operation error S3: GetObject, get identity: get credentials: failed to refresh cached credentials, no EC2 IMDS role found', f"{NONE} (s3:GetObject)"),
        ("dial tcp: lookup ec2.eu-west-1.amazonaws.com: no such host", SILENT),
    ],
)  # fmt: skip
def test_failure_of_aws_is_found_in_messages_of_pulumi(text: str, summary: str) -> None:
    assert str(find_aws_failure(text)).startswith(f"{summary}: ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "error: no stack named 'dev' found",
        "error: the stack is currently locked by 1 lock(s)",
        "error: aws:ec2/vpc:Vpc resource 'network' has a problem: expected cidrBlock to contain a valid CIDR",
        "error: incorrect passphrase",
    ],
)
def test_other_message_of_pulumi_is_no_failure_of_aws(text: str) -> None:
    assert find_aws_failure(text) is None


def test_command_ends_with_the_explanation_instead_of_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise NoCredentialsError

    with pytest.raises(SystemExit, match="there are no AWS credentials: log in with aws sso login"):
        run_command(fail)

    def fail_in_pulumi() -> None:
        raise subprocess.CalledProcessError(255, "pulumi", stderr="error: api error ExpiredToken: x\n")

    with pytest.raises(SystemExit) as ended:
        run_command(fail_in_pulumi)
    assert ended.value.code == 255
    assert capsys.readouterr().err.startswith("the AWS session has expired: log in again")
