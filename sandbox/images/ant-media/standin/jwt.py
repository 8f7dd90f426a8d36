"""HS256 tokens, with which nodes and tools without a session authenticate."""

import base64
import hashlib
import hmac
import json
import time

_HEADER = b'{"alg":"HS256","typ":"JWT"}'


def sign_token(secret: str, lifetime: float) -> str:
    """Returns a token that expires after `lifetime` seconds."""
    claims = json.dumps({"exp": time.time() + lifetime})
    body = f"{_encode(_HEADER)}.{_encode(claims.encode())}"
    return f"{body}.{_encode(_compute_signature(secret, body))}"


def is_valid_token(secret: str, token: str) -> bool:
    body, _, signature = token.rpartition(".")
    try:
        if not hmac.compare_digest(_encode(_compute_signature(secret, body)), signature):
            return False
        payload = body.partition(".")[2]
        expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))).get("exp")
    except (ValueError, AttributeError, TypeError):
        return False
    return expires is None or time.time() < float(expires)


def _compute_signature(secret: str, body: str) -> bytes:
    return hmac.digest(secret.encode(), body.encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
