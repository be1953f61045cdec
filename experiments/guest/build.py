"""How the guest's image is built: without root privilege, mounts, loop devices and daemons.

The root file system is an ext4 image that the guest maps as persistent memory: nothing is copied or unpacked at boot, and
all guests share it in the host's page cache. The kernel is stored unpacked: software emulation takes seconds to unpack it.
"""

import lzma
import os
import platform
import shutil
import subprocess
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from experiments.errors import RoamlabError
from experiments.features import PROGRAMS
from experiments.guest import cpio, recipe
from experiments.guest.packages import Apt, Package, Say, unpack
from experiments.rundir import write_json

_MERGED = ("bin", "sbin", "lib", "lib64", "lib32")
_SITE = "usr/local/lib/{python}/dist-packages"
_PATH = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
_ALIGNMENT_BYTES = 16 << 20  # persistent memory comes in sections of 2 MiB and more
_UUID, _TIME_S = "526f616d-6c61-4200-8000-000000000001", 1_767_225_600
_BLOCK_BYTES = 4096  # of one page: what DAX needs


def release() -> str:
    """The distribution of this machine, which is the guest's as well."""
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return f"{found.get('ID')} {found.get('VERSION_ID')}"


class Build:
    """The steps of a build."""

    def __init__(self, work: Path, out: Path, say: Say) -> None:
        self.work, self.out, self.say = work, out, say
        self.root = work / "root"

    def all_steps(self) -> None:
        """Everything; raises RoamlabError or OSError."""
        packages = self._unpack_packages()
        kernel = self._kernel()
        python = self._python()
        self.say("writing the root file system")
        self._finish_root()
        self._check_programs()
        write_json(self.out / "image.json", {
            "kernel": kernel, "python": python, "release": release(), "root_bytes": self._write_root(),
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
            "packages": {package.name: package.version for package in packages},
        })  # fmt: skip

    def _unpack_packages(self) -> list[Package]:
        apt = Apt(self.work / "apt", self.say)
        self.say("choosing packages")
        kernel = apt.first_known(recipe.KERNELS)
        if kernel is None:
            raise RoamlabError(f"guest image: no kernel package: apt knows none of {', '.join(recipe.KERNELS)}: check this "
                               "machine's package sources and its network")  # fmt: skip
        chosen = [p for p in apt.resolve(recipe.PACKAGES) if not recipe.matches(p.name, recipe.NOT_NEEDED)]
        chosen += [p for p in apt.resolve([kernel]) if recipe.matches(p.name, recipe.KERNEL_PARTS)]
        files = apt.fetch(chosen)
        self.root.mkdir()
        for name in _MERGED:
            (self.root / "usr" / name).mkdir(parents=True)
            (self.root / name).symlink_to(f"usr/{name}")
        for number, file in enumerate(files, 1):
            if number % 10 == 0:
                self.say(f"unpacking package {number} of {len(files)}")
            unpack(file, self.root)
        return chosen

    # -- the kernel -----------------------------------------------------------------------------------------------

    def _kernel(self) -> str:
        """Copy the kernel; keep the modules that networks need, with all that they depend on. The kernel's version."""
        self.say("choosing kernel modules")
        kernels = sorted((self.root / "boot").glob("vmlinuz-*"))
        if not kernels:
            raise RoamlabError("guest image: the kernel's package holds no boot/vmlinuz")
        version = kernels[-1].name.removeprefix("vmlinuz-")
        (self.out / "kernel").write_bytes(unpacked_kernel(kernels[-1].read_bytes()))
        self._depmod(version)
        folder = self.root / "usr/lib/modules" / version
        keep = needed_modules((folder / "modules.dep").read_text())
        keep |= set(load_order((folder / "modules.dep").read_text(), recipe.EARLY_MODULES))
        for path in folder.glob("kernel/**/*.ko*"):
            if path.relative_to(folder).as_posix() not in keep:
                path.unlink()
        for path in sorted(folder.glob("kernel/**/"), reverse=True):
            if not any(path.iterdir()):
                path.rmdir()
        self._depmod(version)
        self._write_initramfs(folder)
        return version

    def _depmod(self, version: str) -> None:
        depmod = self._own_program("usr/bin/kmod") if shutil.which("depmod", path=_PATH) is None else ["depmod"]
        # kmod decides by its name which of its programs it is
        done = subprocess.run(["depmod", "-b", str(self.root), version], executable=shutil.which(depmod[0], path=_PATH),
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode != 0:
            raise RoamlabError(f"guest image: depmod failed: {done.stderr.strip()[-300:]} (Debian package kmod)")

    def _own_program(self, name: str) -> list[str]:
        """The command that runs a program of the image here, with the image's libraries."""
        loader = next((self.root / "usr/lib64").glob("ld-linux-x86-64.so.*"))
        return [str(loader), "--library-path", str(self.root / "usr/lib/x86_64-linux-gnu"), str(self.root / name)]

    # -- Python ---------------------------------------------------------------------------------------------------

    def _python(self) -> str:
        """Copy what runs import out of our own environment, and compile everything: Python is slow in the guest."""
        self.say("copying Python packages")
        python = sorted(path.name for path in (self.root / "usr/lib").glob("python3.*"))[-1]
        site = self.root / _SITE.format(python=python)
        for name in recipe.python_distributions():
            _copy_distribution(name, site, whole=True)
        for name in recipe.PYTHON_NAMED:
            _copy_distribution(name, site, whole=False)
        self.say("compiling Python packages")
        argv = [*self._own_program(f"usr/bin/{python}"), "-S", "-m", "compileall", "-q", "-f", "-s", str(self.root), "-p", "/",
                "--invalidation-mode", "unchecked-hash", str(site), str(self.root / "usr/lib" / python)]  # fmt: skip
        environment = {"PYTHONHOME": str(self.root / "usr"), "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0",
                       "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip  # what it imports itself would be compiled in another form
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        if not list((self.root / "usr/lib" / python).glob("__pycache__/*.pyc")):  # single files of packages may be templates
            raise RoamlabError(
                f"guest image: Python packages cannot be compiled: {(done.stderr or done.stdout).strip()[-300:]}"
            )
        return python

    # -- the file systems -----------------------------------------------------------------------------------------

    def _write_initramfs(self, modules: Path) -> None:
        """busybox and the modules with which the guest reaches its root file system."""
        paths = load_order((modules / "modules.dep").read_text(), recipe.EARLY_MODULES)
        with (self.out / "initramfs.cpio").open("wb") as out:
            writer = cpio.Writer(out)
            for name in ("bin", "dev", "modules", "programs", "programs/etc", "programs/opt"):
                writer.add(cpio.folder(name))
            writer.add(cpio.character_device("dev/console", 5, 1))
            writer.add(cpio.file("bin/busybox", self.root / "usr/bin/busybox", executable=True))
            names = []
            for path in paths:
                names.append(path.rpartition("/")[2].partition(".ko")[0] + ".ko")
                writer.add(cpio.file(f"modules/{names[-1]}", unpacked_module(modules / path)))
            writer.add(cpio.file("modules/order", "\n".join(names).encode()))
            writer.close()

    def _finish_root(self) -> None:
        """What the packages' scripts would do; without what no run uses."""
        etc = self.root / "etc"
        for name in ("passwd", "group"):
            shutil.copyfile(self.root / f"usr/share/base-passwd/{name}.master", etc / name)
        (etc / "hosts").write_text("127.0.0.1 localhost guest\n::1 localhost\n")
        (etc / "hostname").write_text("guest\n")
        for name, target in recipe.LINKS.items():
            path = self.root / name
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        for path in sorted(self.root.rglob("*")):
            if recipe.matches(path.relative_to(self.root).as_posix(), recipe.LEFT_OUT) and os.path.lexists(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        for name in ("proc", "sys", "dev", "run", "tmp", "root", "mnt", "opt", "results"):
            (self.root / name).mkdir(exist_ok=True)

    def _check_programs(self) -> None:
        """Every program of runs finds its libraries: what was left out was not needed."""
        for program in PROGRAMS:
            path = next((p for folder in ("bin", "sbin") if (p := self.root / "usr" / folder / program.name).exists()), None)
            if path is None or not path.read_bytes().startswith(b"\x7fELF"):
                continue
            argv = self._own_program(str(path.relative_to(self.root)))
            done = subprocess.run([argv[0], "--list", *argv[1:]], capture_output=True, text=True)
            missing = [line.split()[0] for line in (done.stdout + done.stderr).splitlines() if "not found" in line]
            if missing or (done.returncode != 0 and "statically" not in done.stderr + done.stdout):
                raise RoamlabError(f"guest image: {program.name} lacks {', '.join(missing) or done.stderr.strip()[-200:]}")

    def _write_root(self) -> int:
        """Make the file system out of the folder; its size."""
        paths = list(self.root.rglob("*"))
        for path in paths:  # the same packages make the same file system
            os.utime(path, (_TIME_S, _TIME_S), follow_symlinks=False)
        data = sum(_blocks(path.lstat().st_size) * _BLOCK_BYTES for path in paths if not path.is_symlink())
        size = -(-int(data * 1.1 + (8 << 20)) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(self.root), "-m", "0",
                "-E", f"root_owner=0:0,hash_seed={_UUID}", "-U", _UUID,
                "-b", str(_BLOCK_BYTES), "-O", "^has_journal,^metadata_csum,^resize_inode", "-N", str(len(paths) + 64),
                str(self.out / "root.ext4"), f"{size // 1024}k"]  # fmt: skip
        try:
            environment = {**os.environ, "PATH": _PATH, "E2FSPROGS_FAKE_TIME": str(_TIME_S)}
            done = subprocess.run(argv, capture_output=True, text=True, env=environment)
        except FileNotFoundError:
            raise RoamlabError("guest image: mke2fs is not installed (Debian package e2fsprogs)") from None
        if done.returncode != 0:
            raise RoamlabError(f"guest image: mke2fs failed: {done.stderr.strip()[-300:]}")
        return size


def _blocks(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_BYTES)


def unpacked_kernel(image: bytes) -> bytes:
    """The kernel as an ELF file, out of a bzImage; the image itself when it is packed in a way that is not known here."""
    for magic, unpack_bytes in _PACKED:
        start = image.find(magic)
        if start < 0:
            continue
        try:
            unpacked = unpack_bytes(image[start:])
        except (lzma.LZMAError, zlib.error, OSError):
            continue
        if unpacked.startswith(b"\x7fELF"):
            return unpacked
    return image


def _unzstd(data: bytes) -> bytes:
    done = subprocess.run(["zstd", "-dc", "-q"], input=data, capture_output=True)
    return done.stdout  # also when something follows the packed data, which zstd calls an error


_PACKED: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"\x1f\x8b\x08", lambda data: zlib.decompressobj(31).decompress(data)),
    (b"\x28\xb5\x2f\xfd", _unzstd),
)


def unpacked_module(path: Path) -> bytes:
    """A module as busybox can load it."""
    data = path.read_bytes()
    for magic, unpack_bytes in _PACKED:
        if data.startswith(magic):
            return unpack_bytes(data)
    return data


def _dependencies(text: str) -> dict[str, list[str]]:
    """modules.dep: path of a module -> paths of those that it needs, the last of which is to be loaded first."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: others.split() for name, _, others in pairs}


def load_order(dependencies: str, wanted: tuple[str, ...]) -> list[str]:
    """Paths of the wanted modules and of what they need, each behind what it needs. What is built in has no path."""
    depends = _dependencies(dependencies)
    by_name = {path.rpartition("/")[2].partition(".ko")[0].replace("-", "_"): path for path in depends}
    order: dict[str, None] = {}
    for name in wanted:
        path = by_name.get(name.replace("-", "_"))
        if path is not None:
            order.update(dict.fromkeys([*reversed(depends[path]), path]))
    return list(order)


def needed_modules(dependencies: str) -> set[str]:
    """The modules that are wanted and what they depend on, from the text of modules.dep; paths as they are there."""
    depends = _dependencies(dependencies)
    keep: set[str] = set()
    for name in depends:
        if recipe.module_matches(name, recipe.MODULES) and not recipe.module_matches(name, recipe.MODULES_LEFT_OUT):
            keep.add(name)
            keep.update(depends[name])
    return keep


def _copy_distribution(name: str, site: Path, *, whole: bool) -> None:
    """Copy an installed distribution, or only its metadata. Raises RoamlabError when it is not installed here."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise RoamlabError(f"guest image: Python package {name} is not installed here: run `make setup`") from None
    for file in found.files or ():
        text = str(file)
        if text.startswith("..") or "__pycache__" in text or not (whole or ".dist-info/" in text):
            continue
        source = Path(str(file.locate()))
        if source.is_file():
            target = site / text
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
