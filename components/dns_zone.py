"""The Route 53 hosted zone that the user has, and the cluster's names in it."""

import pulumi
import pulumi_aws as aws


def find_zone(name: str) -> str:
    """The id of the hosted zone of that name.

    Raises:
        pulumi.RunError: this account has none.
    """
    try:
        return aws.route53.get_zone(name=name).zone_id
    except Exception as error:
        raise pulumi.RunError(
            f'ant-media-cluster:route53Zone is "{name}": {error}; give a hosted zone of this account'
        ) from error
