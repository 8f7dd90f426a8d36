"""Tests of `recordings`."""

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.settings.model import SECRETS, Settings
from cluster.settings.reader import SettingsError, read_settings
from cluster.settings.recordings import name_bucket
from tests.unit.program import SECRETS as SECRET_VALUES
from tests.unit.program import SETTINGS

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def read(recordings: object, **others: object) -> Settings:
    values = {key: json.dumps(value) for key, value in {"recordings": recordings, **others}.items()}
    return read_settings({**SECRET_VALUES, **SETTINGS, **values}, SECRETS, NOW)


@pytest.mark.parametrize(
    ("recordings", "problem"),
    [
        ({}, "recordings.bucket is not set: this setting is required"),
        (
            {"bucket": "My.Bucket"},
            'recordings.bucket is "My.Bucket": give create, or the name of an existing bucket: 3 to 63 lower-case letters, digits and -',
        ),
        (
            {"bucket": "our-recordings", "deleteWithStack": True},
            "recordings.deleteWithStack is true: the program never deletes a bucket that it did not create: leave deleteWithStack out",
        ),
        ({"bucket": "create", "role": "x"}, "recordings.role is not a setting: the settings are bucket, deleteWithStack"),
        (True, "recordings is true: give an object: set each of its keys with pulumi config set --path ant-media-cluster:recordings.NAME VALUE"),
    ],
)  # fmt: skip
def test_wrong_value_is_refused_with_its_remedy(recordings: object, problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        read(recordings)
    assert str(error.value) == f"ant-media-cluster:{problem}"


def test_settings_that_the_bucket_determines_are_refused_and_others_are_not() -> None:
    given = {"*": {"s3BucketName": "another", "s3AccessKey": "AKIA", "s3RecordingEnabled": False}}
    with pytest.raises(SettingsError) as error:
        read({"bucket": "create"}, applicationSettings=given)
    assert str(error.value).splitlines() == [
        'ant-media-cluster:applicationSettings.*.s3AccessKey is "AKIA": recordings sets it: leave it out',
        'ant-media-cluster:applicationSettings.*.s3BucketName is "another": recordings sets it: leave it out',
    ]
    with_own_bucket = {key: json.dumps(value) for key, value in {"applicationSettings": given}.items()}
    assert read_settings({**SECRET_VALUES, **SETTINGS, **with_own_bucket}, SECRETS, NOW).recordings is None


@given(
    st.from_regex(r"[A-Za-z0-9._-]{1,60}", fullmatch=True),
    st.from_regex(r"[a-z]{2}-[a-z]+-\d", fullmatch=True),
)
def test_name_of_a_created_bucket_is_one_that_s3_allows(stack: str, region: str) -> None:
    # S3 User Guide, "General purpose bucket naming rules".
    name = name_bucket(f"ant-media-cluster-{stack}", "123456789012", region)
    assert 3 <= len(name) <= 63
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*[a-z0-9]", name)
    assert not name.endswith(("-s3alias", "--ol-s3"))


def test_bucket_of_another_account_region_or_stack_has_another_name() -> None:
    places = [
        ("a-prod", "1", "eu-west-1"),
        ("a-prod", "2", "eu-west-1"),
        ("a-prod", "1", "eu-west-2"),
        ("a-Prod", "1", "eu-west-1"),
    ]
    assert len({name_bucket(*place) for place in places}) == 4
    assert name_bucket("ant-media-cluster-dev", "1", "eu-west-1").startswith(
        "ant-media-cluster-dev-recordings-"
    )
