"""Changes the cluster of a sandbox as a user of AWS's console would. Run it with `sandbox/bin/cloud exec`.

usage: change_by_hand.py close-rtmp | retype NAME TYPE | rename NAME OTHER | terminate NAME
"""

import sys
from typing import Any

import boto3

from sandbox.cloud import addresses

session = boto3.Session("test", "test", region_name=addresses.REGION)
ec2: Any = session.client("ec2", endpoint_url=addresses.API_URL)


def find_instance(name: str) -> str:
    named = [{"Name": "tag:Name", "Values": [f"ant-media-cluster-sandbox-{name}"]}]
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    [reservation] = ec2.describe_instances(Filters=named + running)["Reservations"]
    return reservation["Instances"][0]["InstanceId"]


match sys.argv[1:]:
    case ["close-rtmp"]:
        rules = ec2.describe_security_group_rules()["SecurityGroupRules"]
        [rule] = [rule for rule in rules if rule["FromPort"] == 1935 and "CidrIpv4" in rule]
        ec2.revoke_security_group_ingress(
            GroupId=rule["GroupId"], SecurityGroupRuleIds=[rule["SecurityGroupRuleId"]]
        )
    case ["retype", name, other]:
        machine = find_instance(name)
        ec2.stop_instances(InstanceIds=[machine])
        ec2.get_waiter("instance_stopped").wait(
            InstanceIds=[machine], WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        ec2.modify_instance_attribute(InstanceId=machine, InstanceType={"Value": other})
        ec2.start_instances(InstanceIds=[machine])
    case ["rename", name, other]:
        ec2.create_tags(Resources=[find_instance(name)], Tags=[{"Key": "Name", "Value": other}])
    case ["terminate", name]:
        ec2.terminate_instances(InstanceIds=[find_instance(name)])
    case _:
        sys.exit(__doc__)
