"""Explains errors of AWS that only the creation or update of a resource shows: which setting causes them, and what to do."""

from cluster.account import VCPU_QUOTA

_SETTINGS = {"load-balancer": "loadBalancer", "database": "database", "origin": "origins", "edge": "edges"}

# Codes of the EC2 API ("Error codes for the Amazon EC2 API").
_REMEDIES = {
    "VcpuLimitExceeded": (
        "ant-media-cluster:{setting}.instanceType: the account's vCPU quota does not allow another machine of this type. "
        f"Request more in Service Quotas ({VCPU_QUOTA} for most types), or give a smaller type or fewer nodes."
    ),
    "InstanceLimitExceeded": (
        "ant-media-cluster:{setting}.instanceType: the account may not run another machine of this type. "
        "Request more in Service Quotas, or give another type or fewer nodes."
    ),
    "InsufficientInstanceCapacity": (
        "ant-media-cluster:{setting}.instanceType: AWS has no free capacity for this type in this zone. "
        "Run the update again later, or give another type."
    ),
    "IncorrectModificationState": (
        "ant-media-cluster:{setting}.volumeSize: AWS has not yet completed the previous modification of this volume, which takes "
        "minutes to hours. Run make up again later."
    ),
    "VolumeModificationRateExceeded": (
        "ant-media-cluster:{setting}.volumeSize: AWS modifies a volume at most four times in 24 hours. Run make up again later."
    ),
    "OptInRequired": (
        "ant-media-cluster:{image}: this account is not subscribed to the image. Accept its terms in AWS Marketplace "
        "(the error has the link), then run the update again; or set the image to ubuntu or to an AMI id."
    ),
    "not eligible for Free Tier": (
        "ant-media-cluster:{setting}: an AWS account on the free plan may not run this type or image. "
        "Upgrade the account to the paid plan (Billing and Cost Management), then run the update again."
    ),
    "PendingVerification": (
        "AWS is still verifying this account for this region. It sends an e-mail when that is done, within hours; "
        "then run the update again."
    ),
    "VpcLimitExceeded": (
        "ant-media-cluster:network: the account may not have another VPC in this region. Delete one that is not in use, "
        "request more in Service Quotas (L-F678F1CE), or give existing subnets in network.subnets."
    ),
    "BucketAlready": (
        "ant-media-cluster:recordings.bucket: a bucket of this name exists; pulumi destroy keeps the bucket of a stack. Give its "
        "name, which is in the error, to go on using it; or delete it, and run the update again."
    ),
    "AddressLimitExceeded": (
        "The load balancer needs an Elastic IP, and the account may not have another in this region. "
        "Release one that is not in use, or request more in Service Quotas (L-0263D0A3)."
    ),
}


def explain_creation_error(resource: str, error: str) -> str | None:
    """Returns setting and remedy for an error in the creation or update of a machine, an Elastic IP or a bucket, or `None` if it explains itself.

    `resource` is the resource's name in the program: `edge3` or `load-balancer-ip`, for example.
    """
    setting = next((key for name, key in _SETTINGS.items() if resource.startswith(name)), "")
    image = "mediaImage" if setting in ("origins", "edges") else "linuxImage"
    remedy = next((text for code, text in _REMEDIES.items() if code in error), None)
    return remedy and remedy.format(setting=setting, image=image)
