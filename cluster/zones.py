"""Assigns availability zones to subnets."""

from collections.abc import Mapping, Sequence


class TooFewZonesError(ValueError):
    """The region has fewer suitable zones than the network has subnets."""


def assign_zones(cidrs: Sequence[str], current: Mapping[str, str], offered: Sequence[str]) -> tuple[str, ...]:
    """Returns the zone of each subnet, in the order of `cidrs`.

    A subnet that exists (`current`: CIDR -> zone) keeps its zone, because another would replace it and its machines.
    All others take the first free zone of `offered`.

    Raises:
        TooFewZonesError: No zone is left for a subnet.
    """
    kept = {cidr: current[cidr] for cidr in cidrs if cidr in current}
    free = [zone for zone in offered if zone not in kept.values()]
    if len(free) < len(cidrs) - len(kept):
        raise TooFewZonesError
    return tuple(kept.get(cidr) or free.pop(0) for cidr in cidrs)
