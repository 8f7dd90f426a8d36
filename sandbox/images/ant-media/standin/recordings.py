"""Finished recordings: their names, and their upload to S3.

As the original's RecordMuxer and AmazonS3StorageClient. A recording holds FLV, not MP4: this image has no muxer.
"""

import asyncio
import datetime
import hashlib
import hmac
import logging
from collections.abc import Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import aiohttp

from .app_settings import AppSettings
from .media import UNFINISHED

log = logging.getLogger("stand-in")
_MP4 = 0b001
"""The bit of uploadExtensionsToS3 for recordings."""


class Recordings:
    """Finishes and uploads the recordings of all applications."""

    def __init__(self, apps: Mapping[str, AppSettings]) -> None:
        self._apps = apps
        self._uploads: set[asyncio.Task[None]] = set()

    async def finish(self, app: str, file: Path) -> None:
        """Gives a recording its final name, and starts its upload."""
        settings = self._apps[app].values
        uploads = settings["s3RecordingEnabled"] and int(str(settings["uploadExtensionsToS3"])) & _MP4
        bucket = _Bucket(settings) if uploads else None
        unfinished = file.with_name(file.name + UNFINISHED)
        folder = str(settings["s3StreamsFolderPath"]).strip("/")
        final, number = file, 0
        try:
            while final.exists() or (bucket and await bucket.has(f"{folder}/{final.name}")):
                number += 1
                final = file.with_name(f"{file.stem}_{number}{file.suffix}")
        except _S3Error as error:
            # The original leaves the unfinished file, too.
            log.error("%s is not finished: %s", unfinished, error)
            return
        unfinished.rename(final)
        if bucket:
            task = asyncio.create_task(_upload(bucket, f"{folder}/{final.name}", final))
            self._uploads.add(task)
            task.add_done_callback(self._uploads.discard)


async def _upload(bucket: "_Bucket", key: str, file: Path) -> None:
    log.info("File %s upload has started with key: %s", file.name, key)
    try:
        await bucket.put(key, file.read_bytes())
    except _S3Error as error:
        log.error("S3 - Error: Upload failed with key %s: %s", key, error)
        return
    file.unlink()
    log.info("File uploaded to S3 with key: %s", key)


class _S3Error(Exception):
    """S3 refused a request or did not answer."""


class _Bucket:
    def __init__(self, settings: Mapping[str, object]) -> None:
        self._settings = settings
        region = str(settings["s3RegionName"])
        self._host = f"{settings['s3BucketName']}.s3.{region}.amazonaws.com"

    async def has(self, key: str) -> bool:
        status, text = await self._request("HEAD", key)
        if status not in (HTTPStatus.OK, HTTPStatus.NOT_FOUND):
            raise _S3Error(f"status {status} {text}")
        return status == HTTPStatus.OK

    async def put(self, key: str, body: bytes) -> None:
        headers = {
            "cache-control": str(self._settings["s3CacheControl"]),
            "x-amz-acl": str(self._settings["s3Permission"]) or "public-read",
            "x-amz-storage-class": str(self._settings["s3StorageClass"]),
        }
        status, text = await self._request("PUT", key, body, headers)
        if status != HTTPStatus.OK:
            raise _S3Error(f"status {status} {text}")

    async def _request(
        self, method: str, key: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        path = "/" + quote(key)
        signed = self._sign(method, path, body, headers or {})
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.request(method, f"https://{self._host}{path}", data=body, headers=signed) as answer,
            ):
                return answer.status, await answer.text(errors="replace")
        except aiohttp.ClientError as error:
            raise _S3Error(str(error)) from error

    def _sign(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        """Returns the headers with a signature of version 4. An empty access key is one like any other, as in the original."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{self._settings['s3RegionName']}/s3/aws4_request"
        digest = hashlib.sha256(body).hexdigest()
        all_headers = {**headers, "host": self._host, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(sorted(all_headers))
        lines = "".join(f"{name}:{all_headers[name]}\n" for name in sorted(all_headers))
        request = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self._settings['s3SecretKey']}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
        credential = f"{self._settings['s3AccessKey']}/{scope}"
        all_headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        return all_headers


def redirect(path: str, settings: Mapping[str, object]) -> str | None:
    """Returns where the original's HttpForwardFilter redirects a path of an application to, or None."""
    base, extensions = str(settings["httpForwardingBaseURL"]), str(settings["httpForwardingExtension"])
    forwarded: Collection[str] = extensions.split(",") if base and extensions else ()
    return f"{base.rstrip('/')}{path}" if any(path.endswith(ending) for ending in forwarded) else None
