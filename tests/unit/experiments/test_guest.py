"""The guest's pure parts: archives, command line, image recipe, reports, messages."""

import contextlib
import io
import json
import lzma
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.capsule import environment
from experiments.cli.guest import _console_log
from experiments.errors import RoamlabError
from experiments.guest import cpio, image, leftovers, qemu, recipe, sources
from experiments.guest.build import Build, load_order, needed_modules, unpacked_kernel
from experiments.guest.image import Image
from experiments.guest.inside import busy_and_total
from experiments.guest.machine import GuestError, LineReader, Machine, Outcome, guest_folder
from experiments.guest.packages import Apt, Package, parse_uris
from experiments.guest.supervise import complete_manifest, order_for_guest, unpack
from topologies.waiting import wait_until

MODULES_DEP = """kernel/net/sched/sch_netem.ko:
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko: kernel/lib/base.ko
kernel/lib/crc16.ko:
kernel/lib/base.ko:
kernel/drivers/net/veth.ko:
kernel/drivers/net/ethernet/big.ko:
kernel/net/tipc/tipc.ko: kernel/net/udp_tunnel.ko
kernel/net/udp_tunnel.ko:
kernel/drivers/net/bonding/bonding.ko: kernel/net/tls.ko kernel/sound/odd.ko
kernel/net/tls.ko:
kernel/sound/odd.ko:
"""


def archive(*entries: cpio.Entry) -> bytes:
    out = io.BytesIO()
    writer = cpio.Writer(out)
    for entry in entries:
        writer.add(entry)
    writer.close()
    return out.getvalue()


def read_archive(data: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Name to mode, content and device, read by the format's definition."""
    found, at = {}, 0
    while data[at : at + 6] == b"070701":
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        name_start, name_bytes, size = at + 110, fields[11], fields[6]
        name = data[name_start : name_start + name_bytes - 1].decode()
        start = (name_start + name_bytes + 3) & ~3
        found[name] = (fields[1], data[start : start + size], (fields[9], fields[10]))
        at = (start + size + 3) & ~3
        if name == "TRAILER!!!":
            at = (at + cpio.BLOCK_BYTES - 1) // cpio.BLOCK_BYTES * cpio.BLOCK_BYTES
    assert at == len(data)
    return found


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 100_000])
def test_archive_holds_what_was_added(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(size))
    found = read_archive(
        archive(cpio.folder("a"), cpio.file("a/f", path), cpio.link("a/l", "f"), cpio.character_device("c", 5, 1))
    )
    assert found["a"][0] == stat.S_IFDIR | 0o755
    assert found["a/f"][:2] == (stat.S_IFREG | 0o644, bytes(size))
    assert found["a/l"][:2] == (stat.S_IFLNK | 0o777, b"f")
    assert found["c"][0] == stat.S_IFCHR | 0o600
    assert found["c"][2] == (5, 1)


def test_archives_can_follow_each_other() -> None:
    first, second = archive(cpio.file("a", b"1")), archive(cpio.file("a", b"2"), cpio.file("b", b"3"))
    assert len(first) % cpio.BLOCK_BYTES == 0
    assert {name: content for name, (_, content, _) in read_archive(first + second).items()} == {
        "a": b"2", "b": b"3", "TRAILER!!!": b""
    }  # fmt: skip


def test_tree_is_in_order_and_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "d" / "no").mkdir(parents=True)
    (tmp_path / "d" / "no" / "x").touch()
    (tmp_path / "d" / "yes").touch()
    (tmp_path / "a").symlink_to("d")
    names = [entry.name for entry in cpio.tree(tmp_path, "p/", lambda name: not name.endswith("/no"))]
    assert names == ["p/a", "p/d", "p/d/yes"]


def test_a_file_that_shrinks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    real = cpio.os.fstat
    monkeypatch.setattr(cpio.os, "fstat", lambda fd: type("S", (), {"st_size": real(fd).st_size + 1}))
    with pytest.raises(OSError, match="shorter"):
        archive(cpio.file("f", path))


# -- QEMU -----------------------------------------------------------------------------------------------------------


def boot(flavour: str, **more: Any) -> list[str]:
    paths = {name: Path(f"/x/{name}") for name in ("kernel", "root", "initrd", "console", "reports", "results")}
    return qemu.command_line(qemu.Boot(flavour, **{**paths, "root_bytes": 16 << 20, **more}))


@pytest.mark.parametrize("flavour", qemu.FLAVOURS)
def test_no_flavour_has_a_network_and_each_dies_with_its_parent(flavour: str) -> None:
    argv = boot(flavour)
    assert argv[:3] == ["setpriv", "--pdeathsig", "KILL"]
    assert argv[argv.index("-nic") + 1] == "none"
    assert not [word for word in argv if "netdev" in word or "virtio-net" in word]
    assert ("-icount" in argv) == (flavour == qemu.VIRTUAL_TIME)
    assert any("kvm" in word for word in argv) == (flavour == qemu.KVM)


def test_virtual_time_is_fixed_in_clock_and_randomness() -> None:
    argv = boot(qemu.VIRTUAL_TIME, seed=7)
    assert argv[argv.index("-icount") + 1].split(",")[:3] == ["shift=0", "sleep=off", "rr=record"]
    assert argv[argv.index("-seed") + 1] == "7"
    assert argv[argv.index("-rtc") + 1].startswith("clock=vm,base=")
    assert not [word for word in argv if "blk" in word or "9p" in word or "rng" in word]  # they answer in the host's time


def test_a_comma_in_a_path_does_not_end_the_option() -> None:
    assert any("path=/a,,b/console" in word for word in boot(qemu.TCG, console=Path("/a,b/console")))


def test_missing_qemu_and_little_memory_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu.shutil, "which", lambda name: None)
    with pytest.raises(RoamlabError, match="package qemu-system-x86"):
        qemu.require()
    monkeypatch.setattr(qemu.shutil, "which", lambda name: name)
    monkeypatch.setattr(qemu, "available_mib", lambda text: 500)
    with pytest.raises(RoamlabError, match=r"needs 1024 MiB of memory, 500 MiB are available") as caught:
        qemu.require(768)
    assert "\n" not in str(caught.value)


def test_available_memory() -> None:
    assert qemu.available_mib("MemTotal: 4096 kB\nMemAvailable:    2048 kB\n") == 2
    assert qemu.available_mib("MemTotal: 4096 kB\n") is None


# -- the image ------------------------------------------------------------------------------------------------------


def test_apt_answers_are_read() -> None:
    text = (
        "Reading package lists...\n"
        "'http://deb.debian.org/pool/libcap2_2.66-4_amd64.deb' libcap2_1%3a2.66-4_amd64.deb 27456 MD5Sum:0\n"
        "'http://deb.debian.org/x.dsc' x.dsc 1 MD5Sum:0\n"
    )
    assert parse_uris(text) == [Package("libcap2", "1:2.66-4", 27456)]


def test_modules_that_stay_bring_what_they_need() -> None:
    assert needed_modules(MODULES_DEP) == {
        "kernel/net/sched/sch_netem.ko", "kernel/lib/crc16.ko", "kernel/lib/base.ko", "kernel/drivers/net/veth.ko",
        "kernel/net/udp_tunnel.ko", "kernel/drivers/net/bonding/bonding.ko", "kernel/net/tls.ko", "kernel/sound/odd.ko",
    }  # fmt: skip


def test_load_order_has_dependencies_first_and_nothing_twice() -> None:
    text = "a/x.ko: a/y.ko a/z-1.ko.xz\na/y.ko: a/z-1.ko.xz\na/z-1.ko.xz:\n"
    assert load_order(text, ("z_1", "x", "built_in", "y")) == ["a/z-1.ko.xz", "a/y.ko", "a/x.ko"]


def test_kernel_is_unpacked_when_possible() -> None:
    elf = b"\x7fELF" + bytes(1000)
    packed = b"MZ" + bytes(77) + lzma.compress(elf) + b"what follows"
    assert unpacked_kernel(packed) == elf
    assert unpacked_kernel(b"MZ" + bytes(100)) == b"MZ" + bytes(100)
    assert unpacked_kernel(b"MZ\xfd7zXZ\0 damaged") == b"MZ\xfd7zXZ\0 damaged"


def test_python_distributions_come_with_what_they_need() -> None:
    found = recipe.python_distributions(("rich",))
    assert {"rich", "pygments", "markdown-it-py", "mdurl"} <= set(found)
    assert "numpy" not in recipe.python_distributions()


def test_programs_of_the_guest_are_the_same_bytes_each_time() -> None:
    first = sources.programs("python3.99")
    assert first == sources.programs("python3.99")
    names = read_archive(first)
    assert names["init"][0] == stat.S_IFREG | 0o755
    assert "programs/opt/roamlab/experiments/guest/start.sh" in names
    assert not [name for name in names if name.endswith(".pyc") or "analysis" in name.split("/")]


# -- runs -----------------------------------------------------------------------------------------------------------


def order(**changes: Any) -> dict[str, Any]:
    run = {"seed": 3, "repetition": 2, "scenario": {"name": "s"}}
    return {
        "run": run,
        "folder": "/r",
        "run_id": "c-x-r2",
        "campaign": "c",
        "environment": {"guest": {"kernel": "k"}},
    } | changes


def test_guest_is_not_told_what_differs_between_executions() -> None:
    again = order(folder="/elsewhere", run_id="d-x-r2", campaign="d", environment={"command": ["other"]})
    assert order_for_guest(order()) == order_for_guest(again)
    assert order_for_guest(order())["run"]["seed"] == 3


@pytest.mark.parametrize(("busy", "limited"), [(0.7, False), (0.71, True), (None, False)])
def test_manifest_gets_what_the_guest_was_not_told(busy: float | None, limited: bool) -> None:
    reports = [{"phase": "booted"}, {"phase": "handing back", "cpu_busy": busy}, {"phase": "end", "code": 0}]
    outcome = Outcome(0, 20.0, 60.5, Path("/x"), reports)
    manifest = complete_manifest({"run_id": "run", "campaign": "run", "repetition": 0, "state": "complete"}, order(), outcome)
    assert (manifest["run_id"], manifest["campaign"], manifest["repetition"]) == ("c-x-r2", "c", 2)
    assert manifest["guest"] == {
        "kernel": "k", "guest_s": 20.0, "wall_s": 60.5, "cpu_busy": busy, "cpu_limited": limited,
    }  # fmt: skip


def test_a_cut_archive_is_not_taken_for_results(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "manifest.json").write_text(json.dumps({"x": "y" * 30_000}))
    whole = tmp_path / "whole.tar"
    subprocess.run(["tar", "-c", "-f", str(whole), "-C", str(tmp_path / "in"), "."], check=True)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[:15_000])
    with pytest.raises(GuestError, match="not whole"):
        unpack(cut, tmp_path / "out")
    unpack(whole, tmp_path / "out")
    (tmp_path / "empty").touch()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(GuestError, match="not whole"):
        unpack(tmp_path / "empty", tmp_path / "nothing")


def test_reports_are_read_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "reports"
    reader = LineReader(path)
    assert list(reader.read()) == []
    path.write_bytes(b'{"a": 1}\n[1]\nnoise\n{"b"')
    assert list(reader.read()) == [{"a": 1}]
    with path.open("ab") as file:
        file.write(b": 2}\n")
    assert list(reader.read()) == [{"b": 2}]


def test_panic_hang_and_silence_have_their_own_messages(tmp_path: Path) -> None:
    console = tmp_path / "console.log"
    machine = Machine(Image(tmp_path), tmp_path, console)
    assert "without a result" in machine._why_ended(0, "")
    assert "its console is empty" in machine._why_ended(0, "")
    assert machine._why_ended(1, "x\nqemu-system-x86_64: no such option\n").endswith("no such option")
    console.write_text("[ 1.0] fine\n[ 2.0] Kernel panic - not syncing: VFS: no root\n[ 2.1] end\n")
    text = machine._why_ended(0, "")
    assert text.startswith("the guest's kernel panicked: Kernel panic - not syncing: VFS: no root; the console")
    assert text.endswith("[ 2.1] end")
    assert "\n" not in text


def test_cpu_use_counts_waiting_as_idle() -> None:
    assert busy_and_total("cpu  10 1 5 70 4 2 3 0 9 9\ncpu0 ...\n") == (21, 95)


# -- what is left, and what is said when something is missing -------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_folder_of_a_guest_goes_with_its_block(temporary: Path) -> None:
    with leftovers.temporary_folder() as folder:
        (folder / "x").write_text("x")
        assert leftovers.remove_stale() == []  # somebody uses it
        assert folder.is_dir()
    assert not list(temporary.iterdir())


def test_folder_of_a_guest_goes_with_a_killed_process(temporary: Path) -> None:
    code = ("from experiments.guest.leftovers import temporary_folder; import signal\n"
            "with temporary_folder() as folder: print(folder, flush=True); signal.pause()")  # fmt: skip
    env = {**environment(), "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        process.kill()
        wait_until(lambda: not folder.exists(), 10, "removal of the folder")


def test_stale_folders_are_removed_at_the_next_start(temporary: Path) -> None:
    stale, strange = temporary / f"{leftovers.PREFIX}old", temporary / "other"
    for path in (stale, strange):
        path.mkdir()
    assert leftovers.remove_stale(dry_run=True) == [stale]
    assert stale.is_dir()
    with leftovers.temporary_folder():
        assert not stale.exists()
    assert strange.is_dir()


def test_no_folder_for_guests_is_one_line(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "missing"))
    with (
        pytest.raises(RoamlabError, match="missing: No such file or directory: make room or set TMPDIR"),
        guest_folder(Image(temporary)),
    ):
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for images with a complete one in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = image.cache_folder() / image.digest()
    folder.mkdir(parents=True)
    for name in ("kernel", "initramfs.cpio", "root.ext4"):
        (folder / name).touch()
    (folder / "image.json").write_text("{}")
    return folder


def say(_text: str) -> None:
    """Nobody listens."""


def test_a_complete_image_is_taken(cache: Path) -> None:
    assert image.get(say).folder == cache


def test_images_that_were_used_last_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [cache.with_name(f"other{n}") for n in range(5)]
    for n, path in enumerate([cache, *others]):
        path.mkdir(exist_ok=True)
        (path / "image.json").write_text("{}")
        os.utime(path, (n, n))
    image.get(say)  # the oldest of all is used again
    image._forget_old(cache.parent)
    assert set(cache.parent.iterdir()) == {cache, *others[-2:]}


@pytest.mark.parametrize("name", ["kernel", "initramfs.cpio", "root.ext4", "image.json"])
def test_a_damaged_image_is_one_line_with_the_remedy(cache: Path, name: str) -> None:
    (cache / name).unlink()
    with pytest.raises(RoamlabError, match=rf"{name}: No such file or directory: .*guest build --renew") as caught:
        image.get(say)
    assert "\n" not in str(caught.value)
    (cache / name).mkdir()
    with pytest.raises(RoamlabError, match=rf"{name}: Is a directory: .*guest build --renew"):
        image.get(say)


def test_a_damaged_description_is_one_line_with_the_remedy(cache: Path) -> None:
    (cache / "image.json").write_text("{")
    with pytest.raises(RoamlabError, match=r"image\.json: line 1: not JSON.*guest build --renew"):
        image.get(say)


def test_a_cache_that_may_not_be_entered_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(RoamlabError, match=r"Permission denied: .*XDG_CACHE_HOME"):
        image.get(say)


def test_no_room_for_an_image_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image.shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(RoamlabError, match=r"only 5 MB free, .* takes 1600 MB: make room or set XDG_CACHE_HOME"):
        image.get(say, renew=True)
    assert cache.is_dir()  # the one that was there stays


def test_a_disk_that_fills_up_during_a_build_is_one_line(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Build) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**10))
    monkeypatch.setattr(Build, "all_steps", fail)
    with pytest.raises(RoamlabError, match="cannot be built: No space left on device: make room"):
        image.get(say, renew=True)
    assert not list(cache.parent.glob("*.partial"))


def test_no_kernel_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Apt, "first_known", lambda self, names: None)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: name)
    with pytest.raises(
        RoamlabError, match=r"no kernel package: apt knows none of linux-image-amd64, .*: check .* package sources"
    ):
        Build(tmp_path, tmp_path, say).all_steps()


def test_a_full_disk_explains_a_cut_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(GuestError, match=rf"not whole: tar: .*; {tmp_path} is full: set TMPDIR"):
        unpack(tmp_path / "empty", tmp_path)


def test_our_sources_that_cannot_be_compiled_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "*** Error compiling x\nOSError: [Errno 28] No space left on device\n\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(RoamlabError, match=r"compiled for the guest in \S+: OSError: .* No space left on device$") as caught:
        sources.programs(python)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "text", "kept"),
    [(None, "x", False), (GuestError("x"), "", False), (GuestError("x"), "panic", True), (KeyboardInterrupt(), "x", False)],
)
def test_console_of_a_shell_stays_only_when_a_message_names_it(
    temporary: Path, error: BaseException | None, text: str, kept: bool
) -> None:
    with contextlib.suppress(GuestError, KeyboardInterrupt), _console_log() as log:
        log.write_text(text)
        if error is not None:
            raise error
    assert bool(list(temporary.iterdir())) is kept
