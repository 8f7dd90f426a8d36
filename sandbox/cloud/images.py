"""Machine images: built once by the scripts in images/, kept in the cache, never half there."""

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
from sandbox.cloud.process_tree import CLONE_NEWPID, die_with_parent, mount_overlay, private_mounts, unshare

SCRIPTS = host.SANDBOX / "images"
FOLDER = host.CACHE / "images"
BASE = "debian-13"
OVERLAYS = ("ant-media",)
"""Images that are installed on top of the base."""

Layers = tuple[Path, ...]
"""The folders whose overlay (first on top) is a machine's file system."""


def build_missing() -> dict[str, Layers]:
    """All images by name; those that are not in the cache as they should be are built now."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _alone():
        for cut_off in FOLDER.glob("*.building"):
            shutil.rmtree(cut_off)
        base = _base()
        images: dict[str, Layers] = {BASE: (base,)}
        for name in OVERLAYS:
            if (SCRIPTS / f"{name}.sh").exists():
                images[name] = (_overlay(name, base), base)
        _forget(layer for layers in images.values() for layer in layers)
        return images


def build(name: str) -> Layers:
    """One image on top of the base, for tests and benchmarks: no machine boots from it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _alone():
        base = _base()
        layers = (_overlay(name, base), base)
        _forget(layers)
        return layers


def _forget(used: Iterable[Path]) -> None:
    """Removes what no cloud was started with for a week: scripts change, and each change is another image."""
    for layer in used:
        os.utime(layer)
    for path in FOLDER.glob("*-*"):
        if path.stat().st_mtime < time.time() - 7 * 24 * 3600:
            shutil.rmtree(path)


@contextmanager
def _alone() -> Generator[None]:
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _base() -> Path:
    sources = apt.render_sources(apt.for_trixie(apt.read_sources(Path("/"))))
    configuration = apt.host_configuration()

    def build(building: Path) -> Path:
        (building / "sources.list").write_text(sources)
        (building / "apt.conf").write_text(configuration)
        os.environ |= {"SOURCES": str(building / "sources.list"), "APT_CONF": str(building / "apt.conf")}
        _run_script(BASE, building / "root")
        return building / "root"

    return _cached(BASE, _key([SCRIPTS / f"{BASE}.sh"], [sources, configuration]), build)


def _overlay(name: str, base: Path) -> Path:
    scripts = [SCRIPTS / f"{name}.sh", SCRIPTS / "chroot.sh"]
    sources = sorted(path for path in (SCRIPTS / name).rglob("*") if path.is_file() and path.suffix != ".pyc")
    facts = [base.name]
    if archive := os.environ.get("AMS_ZIP"):  # a real server in place of the stand-in
        status = Path(archive).stat()
        scripts.append(SCRIPTS / f"{name}-zip.sh")
        facts += [str(Path(archive).resolve()), str(status.st_size), str(status.st_mtime_ns)]

    def build(building: Path) -> Path:
        root, upper, work = (building / part for part in ("root", "upper", "work"))
        mount_overlay([base], upper, work, root)
        _run_script(name, root)
        return upper

    return _cached(name, _key([*scripts, *sources], facts), build)


def _key(files: Iterable[Path], facts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(
            f"{file.relative_to(SCRIPTS)} {file.stat().st_mode & 0o111}\n".encode() + file.read_bytes()
        )
    for fact in facts:
        digest.update(fact.encode())
    return digest.hexdigest()[:12]


def _run_script(name: str, target: Path) -> None:
    # Process 1 of a namespace: when it goes, as it does with its parent, nothing is left to write into the next attempt.
    unshare(CLONE_NEWPID)
    script = [SCRIPTS / f"{name}.sh", target]
    subprocess.run(script, check=True, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)


def _cached(name: str, key: str, build: Callable[[Path], Path]) -> Path:
    """The finished image; `build` (in a process of its own) makes it in a temporary place and says what of it is to be kept."""
    target = FOLDER / f"{name}-{key}"
    if target.exists():
        return target
    building = FOLDER / f"{target.name}.building"
    building.mkdir()
    log = building / "log"
    log.touch()

    def work() -> None:
        die_with_parent()
        private_mounts()  # so do its mounts
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
