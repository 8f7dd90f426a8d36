"""The rules as a Pulumi policy pack: `pulumi up --policy-pack policy`."""

# pulumi_policy is in an environment of its own.
# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportUnknownLambdaType=false

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
    policy,
    proxy,
)
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY

# Pulumi runs this folder, not the project.
sys.path.insert(0, str(Path(__file__).parent.parent))

from policy.resource import SECRET, UNKNOWN, Resource
from policy.rules import RULES, Rule, read_config

UNKNOWNS = {value for name, value in vars(proxy).items() if name.startswith("UNKNOWN_")}


def visible(value: Any) -> Any:
    """What the rules may see of a value on Pulumi's wire."""
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        if members.get(SPECIAL_SIG_KEY) == SPECIAL_SECRET_SIG:
            return SECRET
        return {key: visible(member) for key, member in members.items()}
    if isinstance(value, list):
        return [visible(item) for item in cast(list[Any], value)]
    return UNKNOWN if value in UNKNOWNS else value


# Pulumi's own reading shows policies each secret in clear, and ends a policy at the first value that is not known yet.
policy.deserialize_properties = lambda properties, proxy_secrets=False: visible(properties)
policy.unknown_checking_proxy = lambda properties: properties

inputs: dict[str, Mapping[str, Any]] = {}
"""Of each resource, by URN. A policy of the whole stack is shown outputs instead, in which AWS says more."""

OfResource: TypeAlias = Callable[[ResourceValidationArgs, ReportViolation], None]
OfStack: TypeAlias = Callable[[StackValidationArgs, ReportViolation], None]


def of_resource(rule: Rule) -> OfResource:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        inputs[args.urn] = args.props
        resource = Resource(args.resource_type, args.name, args.props, args.opts.protect)
        for _, what in rule.check([resource], args.get_config()):
            report(what, None)

    return validate


def of_stack(rule: Rule) -> OfStack:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        urns: dict[int, str] = {}
        resources: list[Resource] = []
        for found in args.resources:
            depends = {
                key: [origin.name for origin in origins]
                for key, origins in found.property_dependencies.items()
            }
            resource = Resource(
                found.resource_type,
                found.name,
                inputs.get(found.urn) or found.props,
                found.opts.protect,
                depends,
            )
            resources.append(resource)
            urns[id(resource)] = found.urn
        for resource, what in rule.check(resources, args.get_config()):
            report(what, urns[id(resource)] if resource else None)

    return validate


def as_policy(name: str, rule: Rule) -> Policy:
    schema = PolicyConfigSchema({key: dict(option) for key, option in rule.options.items()})
    if rule.whole_stack:
        return StackValidationPolicy(name, rule.description, of_stack(rule), config_schema=schema)
    return ResourceValidationPolicy(name, rule.description, of_resource(rule), config_schema=schema)


PolicyPack(
    "ant-media-cluster",
    [as_policy(name, rule) for name, rule in RULES.items()],
    EnforcementLevel.MANDATORY,
    # What `--policy-pack-config policy/prod.json` says comes over it.
    initial_config=read_config(""),
)
