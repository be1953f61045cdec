"""Debian packages without installing them: apt decides and downloads, dpkg-deb unpacks. No privilege, nothing changed here.

apt works on an empty list of installed packages, so that the answer does not depend on what this machine has.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from experiments.errors import RoamlabError

Say = Callable[[str], None]
_LIST_TIMEOUT_S = 300
_POLL_S = 0.5
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<bytes>\d+)")


@dataclass(frozen=True)
class Package:
    """A package file in the archive."""

    name: str
    version: str
    size_bytes: int


def parse_uris(text: str) -> list[Package]:
    """The packages of `apt-get --print-uris`."""
    found = []
    for line in text.splitlines():
        match = _URI.match(line)
        if match is None or not match["file"].endswith(".deb"):
            continue
        name, version, _ = unquote(match["file"]).split("_", 2)
        found.append(Package(name, version, int(match["bytes"])))
    return found


class Apt:
    """apt with a state of its own in `folder`."""

    def __init__(self, folder: Path, say: Say) -> None:
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise RoamlabError(
                "the guest's image is built from Debian packages: apt-get and dpkg-deb are needed on this machine"
            )
        self.folder, self.say = folder, say
        self.archives = folder / "archives"
        (self.archives / "partial").mkdir(parents=True)
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "status").touch()
        self._options = [
            f"Dir::State::status={folder / 'status'}", f"Dir::Cache::archives={self.archives}",
            "Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
            "APT::Sandbox::User=root", "Debug::NoLocking=1", "APT::Install-Recommends=0", "APT::Get::List-Cleanup=0",
        ]  # fmt: skip

    def resolve(self, names: Sequence[str]) -> list[Package]:
        """The packages and everything that they depend on. Raises RoamlabError with apt's own words."""
        done = self._run("--print-uris", "-y", "install", *names)
        if done.returncode != 0:
            self._renew_lists()
            done = self._run("--print-uris", "-y", "install", *names)
        if done.returncode != 0:
            raise RoamlabError(f"guest image: apt does not find all packages: {_last_line(done.stderr)}")
        return parse_uris(done.stdout)

    def first_known(self, names: Sequence[str]) -> str | None:
        """The first of several names that the archive has."""
        for attempt in range(2):
            for name in names:
                if self._run("--print-uris", "-y", "install", name).returncode == 0:
                    return name
            if attempt == 0:
                self._renew_lists()
        return None

    def fetch(self, packages: Sequence[Package]) -> list[Path]:
        """Download, with checked hashes; the files. Raises RoamlabError."""
        if not self._fetch_once(packages):
            self._renew_lists()  # a package that has been replaced in the archive meanwhile
            names = [package.name for package in packages]
            packages = [package for package in self.resolve(names) if package.name in names]
            if not self._fetch_once(packages):
                raise RoamlabError(f"guest image: download failed: {self._trouble}")
        return sorted(self.archives.glob("*.deb"))

    _trouble = ""

    def _fetch_once(self, packages: Sequence[Package]) -> bool:
        total = sum(package.size_bytes for package in packages)
        argv = self._argv("download", *(f"{package.name}={package.version}" for package in packages))
        log = self.folder / "download.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv, cwd=self.archives, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=_environment()
            )
            try:
                while process.poll() is None:
                    here = sum(_size(path) for path in self.archives.rglob("*.deb"))
                    self.say(f"downloading {len(packages)} packages: {here / 1e6:.0f} of {total / 1e6:.0f} MB")
                    try:
                        process.wait(_POLL_S)
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                process.kill()
                process.wait()
        self._trouble = _last_line(log.read_text(errors="replace"))
        return process.returncode == 0

    def _renew_lists(self) -> None:
        """Lists of our own: this machine's are missing or old, and only root could renew them."""
        lists = f"Dir::State::lists={self.folder / 'lists'}"
        if lists not in self._options:
            self.say("reading the archive's package lists")
            self._options.append(lists)
            self._run("update")  # one unreachable archive of several is an error here; what follows tells whether it mattered

    def _argv(self, *arguments: str) -> list[str]:
        return ["apt-get", "-q", *(part for option in self._options for part in ("-o", option)), *arguments]

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                self._argv(*arguments), capture_output=True, text=True, timeout=_LIST_TIMEOUT_S, env=_environment()
            )
        except subprocess.TimeoutExpired:
            raise RoamlabError(f"guest image: apt-get {arguments[0]}: no answer within {_LIST_TIMEOUT_S} s") from None


def unpack(archive: Path, root: Path) -> None:
    """Unpack a package below `root`, whose /bin, /lib, /sbin may be links into /usr. Raises RoamlabError."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as reader:
        done = subprocess.run(
            ["tar", "-x", "-C", str(root), "--keep-directory-symlink", "--no-same-owner", "--delay-directory-restore"],
            stdin=reader.stdout, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode != 0 or reader.returncode != 0:
        raise RoamlabError(f"guest image: {archive.name}: cannot be unpacked: {_last_line(done.stderr)}")


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # renamed meanwhile
        return 0


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")]
    return (errors or lines or ["no message"])[-1][:300]
