"""Stop a deployment that nobody has to approve: the environment needs required reviewers, and branches that may use it.

GitHub makes an environment that is missing, without either, and without a word; then a merge alone deploys to it.
"""

import argparse
import sys

from operations.forge.api import ForgeError, github, patiently


def missing(environment: str) -> list[str]:
    """What it lacks."""
    api = github("{actions: read}")
    found = patiently(lambda: api.ask("GET", f"/environments/{environment}"))
    rules = [rule["type"] for rule in found["protection_rules"]]
    return [
        *(["required reviewers"] if "required_reviewers" not in rules else []),
        *(["deployment branches"] if not found["deployment_branch_policy"] else []),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("environment")
    environment: str = parser.parse_args().environment
    if lacks := missing(environment):
        raise ForgeError(
            f"the environment {environment} has no {' and no '.join(lacks)}, so nothing is deployed: give it both in the"
            " repository's settings (docs/deployment.md, Setting it up, 4)"
        )


if __name__ == "__main__":
    try:
        main()
    except ForgeError as error:
        sys.exit(f"require_approval: {error}")
