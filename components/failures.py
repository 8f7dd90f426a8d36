"""Explains failures of AWS beside the provider's own errors."""

import pulumi

from cluster.aws_errors import explain_creation_error


def explain_failures() -> pulumi.ResourceHookBinding:
    """Returns the hook of resources whose creation or change may exceed what the account allows. It never retries."""

    def explain(args: pulumi.ErrorHookArgs) -> bool:
        explanation = explain_creation_error(args.name, args.errors[0] if args.errors else "")
        if explanation:
            pulumi.log.error(explanation)
        return False

    return pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook("explain-aws-failure", explain)])
