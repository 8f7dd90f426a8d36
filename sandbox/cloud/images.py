"""Builds machine images with the scripts in sandbox/images and caches them."""

import fcntl
import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from sandbox.cloud import apt, host
from sandbox.cloud.media_server import Archive
from sandbox.cloud.process_tree import CLONE_NEWPID, die_with_parent, mount_overlay, unshare, unshare_mounts

SCRIPTS = host.SANDBOX / "images"
INSTALLER = host.SANDBOX.parent / "templates/scripts/node/install-ant-media-server.sh"
FOLDER = host.CACHE / "images"
BASE = "debian-13"
ANT_MEDIA = "ant-media"

Layers = tuple[Path, ...]
"""Folders of an overlay file system, the topmost first."""


def build_missing(archive: Archive | None = None) -> dict[str, Layers]:
    """Returns all images by name; builds those that are missing or out of date.

    With an archive, ANT_MEDIA has this Ant Media Server instead of the stand-in.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _lock_cache():
        for incomplete in FOLDER.glob("*.building"):
            shutil.rmtree(incomplete)
        base = _build_base()
        ant_media = _build_media_server(archive, base) if archive else _build_overlay(ANT_MEDIA, base)
        images: dict[str, Layers] = {BASE: (base,), ANT_MEDIA: (ant_media, base)}
        _remove_unused(layer for layers in images.values() for layer in layers)
        return images


def build(name: str) -> Layers:
    """Returns an image for tests and benchmarks; builds it if it is missing or out of date."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _lock_cache():
        base = _build_base()
        layers = (_build_overlay(name, base), base)
        _remove_unused(layers)
        return layers


def _remove_unused(used: Iterable[Path]) -> None:
    """Removes images that were not used for a week: each change of a script creates a new image."""
    for layer in used:
        os.utime(layer)
    for path in FOLDER.glob("*-*"):
        if path.stat().st_mtime < time.time() - 7 * 24 * 3600:
            shutil.rmtree(path)


@contextmanager
def _lock_cache() -> Generator[None]:
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build_base() -> Path:
    sources = apt.render_sources(apt.convert_to_trixie(apt.read_sources(Path("/"))))
    configuration = apt.read_host_configuration()

    def build(building: Path) -> Path:
        (building / "sources.list").write_text(sources)
        (building / "apt.conf").write_text(configuration)
        os.environ |= {"SOURCES": str(building / "sources.list"), "APT_CONF": str(building / "apt.conf")}
        _run_script(BASE, building / "root")
        return building / "root"

    return _build_unless_cached(BASE, _cache_key([SCRIPTS / f"{BASE}.sh"], [sources, configuration]), build)


def _build_overlay(name: str, base: Path) -> Path:
    sources = sorted(path for path in (SCRIPTS / name).rglob("*") if path.is_file() and path.suffix != ".pyc")
    key = _cache_key([SCRIPTS / f"{name}.sh", SCRIPTS / "chroot.sh", *sources], [base.name])
    return _build_unless_cached(name, key, lambda building: _run_on_overlay(base, building, name))


def _build_media_server(archive: Archive, base: Path) -> Path:
    name = f"{ANT_MEDIA}-zip"
    scripts = [SCRIPTS / f"{name}.sh", SCRIPTS / "chroot.sh", INSTALLER]

    def build(building: Path) -> Path:
        if not archive.is_unchanged():
            sys.exit(
                f"{archive.path} has changed since it was selected, or does not exist: run make up AMS_ZIP=…,"
                " with the path of an archive or with stand-in"
            )
        return _run_on_overlay(base, building, name, archive.path)

    return _build_unless_cached(name, _cache_key(scripts, [base.name, archive.sha256]), build)


def _run_on_overlay(base: Path, building: Path, name: str, *arguments: Path) -> Path:
    """Runs a script on a tree over `base` and returns the folder with the changes."""
    root, upper, work = (building / part for part in ("root", "upper", "work"))
    mount_overlay([base], upper, work, root)
    _run_script(name, root, *arguments)
    return upper


def _cache_key(files: Iterable[Path], inputs: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(
            f"{os.path.relpath(file, SCRIPTS)} {file.stat().st_mode & 0o111}\n".encode() + file.read_bytes()
        )
    for text in inputs:
        digest.update(text.encode())
    return digest.hexdigest()[:12]


def _run_script(name: str, target: Path, *arguments: Path) -> None:
    # The script is process 1 of a PID namespace. It dies with its parent, and its children die with it,
    # so no process of a failed build writes into the next one.
    unshare(CLONE_NEWPID)
    script = [SCRIPTS / f"{name}.sh", target, *arguments]
    subprocess.run(script, check=True, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)


def _build_unless_cached(name: str, key: str, build: Callable[[Path], Path]) -> Path:
    """Returns the cached image; if there is none, runs `build` in a child process.

    `build` receives a temporary folder and returns the subfolder that becomes the image.
    """
    target = FOLDER / f"{name}-{key}"
    if target.exists():
        return target
    building = FOLDER / f"{target.name}.building"
    building.mkdir()
    log = building / "log"
    log.touch()

    def work() -> None:
        die_with_parent()
        unshare_mounts()  # its mounts end with the process
        with log.open("wb") as output:
            for descriptor in (1, 2):
                os.dup2(output.fileno(), descriptor)
        try:
            build(building).rename(building / "finished")
        except (OSError, subprocess.SubprocessError) as error:
            sys.exit(str(error))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    started = time.monotonic()
    while process.is_alive():
        process.join(5)
        seconds = time.monotonic() - started
        print(f"  building machine image {name}: {seconds:3.0f} s, {_last_line(log)}", flush=True)
    if process.exitcode != 0:
        sys.exit(f"building machine image {name} failed:\n{_tail(log)}")
    (building / "finished").rename(target)
    shutil.rmtree(building)
    return target


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").replace("\r", "\n").split("\n") if log.exists() else []
    return next((line.strip()[:80] for line in reversed(lines) if line.strip()), "starting")
