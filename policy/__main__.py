"""Serves the rules to the Pulumi engine as a policy pack: `pulumi up --policy-pack policy`."""

# pulumi_policy is installed in policy/.venv only.
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
    PolicyProviderResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
    policy,
    proxy,
)
from pulumi_policy.deserialize import SPECIAL_SECRET_SIG, SPECIAL_SIG_KEY

# Pulumi runs `python policy`, which puts only this folder on the path. The rules also import cluster/.
sys.path.insert(0, str(Path(__file__).parent.parent))

from policy.resource import SECRET, UNKNOWN, Resource
from policy.rules import RULES, Rule, read_config

UNKNOWN_MARKERS = {value for name, value in vars(proxy).items() if name.startswith("UNKNOWN_")}


def hide_secrets_and_unknowns(value: Any) -> Any:
    """Returns a value from the engine with `SECRET` and `UNKNOWN` in place of what the rules must not or cannot see."""
    if isinstance(value, dict):
        members = cast(dict[str, Any], value)
        if members.get(SPECIAL_SIG_KEY) == SPECIAL_SECRET_SIG:
            return SECRET
        return {key: hide_secrets_and_unknowns(member) for key, member in members.items()}
    if isinstance(value, list):
        return [hide_secrets_and_unknowns(item) for item in cast(list[Any], value)]
    return UNKNOWN if value in UNKNOWN_MARKERS else value


# pulumi_policy decrypts secrets for policies, and stops a policy at the first unknown value that it reads.
policy.deserialize_properties = lambda properties, proxy_secrets=False: hide_secrets_and_unknowns(properties)
policy.unknown_checking_proxy = lambda properties: properties

inputs_by_urn: dict[str, Mapping[str, Any]] = {}
"""Inputs of every resource checked so far. Stack policies receive outputs, to which AWS adds values."""


def read_provider_inputs(provider: PolicyProviderResource | None) -> Mapping[str, Any]:
    """Returns the inputs of a resource's provider; empty for a component, which has no provider."""
    return provider.props if provider else {}


ResourceValidator: TypeAlias = Callable[[ResourceValidationArgs, ReportViolation], None]
StackValidator: TypeAlias = Callable[[StackValidationArgs, ReportViolation], None]


def create_resource_validator(rule: Rule) -> ResourceValidator:
    """Returns a validator that applies a rule to one resource."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        inputs_by_urn[args.urn] = args.props
        resource = Resource(
            args.resource_type,
            args.name,
            args.props,
            args.opts.protect,
            provider=read_provider_inputs(args.provider),
        )
        for _, message in rule.check([resource], args.get_config()):
            report(message, None)

    return validate


def create_stack_validator(rule: Rule) -> StackValidator:
    """Returns a validator that applies a rule to all resources of the stack."""

    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        urns: dict[int, str] = {}
        resources: list[Resource] = []
        for candidate in args.resources:
            if candidate.urn not in inputs_by_urn:
                continue  # not registered by the program: this update deletes it
            dependencies = {
                key: [dependency.name for dependency in origins]
                for key, origins in candidate.property_dependencies.items()
            }
            resource = Resource(
                candidate.resource_type,
                candidate.name,
                inputs_by_urn.get(candidate.urn) or candidate.props,
                candidate.opts.protect,
                dependencies,
                read_provider_inputs(candidate.provider),
            )
            resources.append(resource)
            urns[id(resource)] = candidate.urn
        for resource, message in rule.check(resources, args.get_config()):
            report(message, urns[id(resource)] if resource else None)

    return validate


def create_policy(name: str, rule: Rule) -> Policy:
    """Returns the Pulumi policy for a rule."""
    schema = PolicyConfigSchema({key: dict(option) for key, option in rule.options.items()})
    if rule.whole_stack:
        validator = create_stack_validator(rule)
        return StackValidationPolicy(name, rule.description, validator, config_schema=schema)
    return ResourceValidationPolicy(
        name, rule.description, create_resource_validator(rule), config_schema=schema
    )


PolicyPack(
    "ant-media-cluster",
    [create_policy(name, rule) for name, rule in RULES.items()],
    EnforcementLevel.MANDATORY,
    # `--policy-pack-config policy/prod.json` overrides the properties. Without a level of its own, an entry makes its
    # policy advisory: the protocol cannot express that a level is missing.
    initial_config={
        name: {**properties, "enforcementLevel": EnforcementLevel.MANDATORY}
        for name, properties in read_config("").items()
    },
)
