"""What is in the guest's image: packages, kernel modules, Python packages, and what is left out."""

import fnmatch
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import PurePosixPath

from packaging.requirements import Requirement

PACKAGES = (
    "base-passwd", "bash", "busybox-static", "coreutils", "dash", "debianutils", "findutils", "grep", "hostname", "kmod",
    "libc-bin", "mawk", "mount", "netbase", "procps", "python3", "sed", "tar", "util-linux",
    # the programs of runs
    "dnsmasq-base", "ethtool", "iperf3", "iproute2", "iptables", "iputils-ping", "mininet", "mptcpize", "net-tools", "nftables",
    "tcpdump", "udhcpc", "wireshark-common",
)  # fmt: skip
KERNELS = ("linux-image-amd64", "linux-image-virtual")
"""Debian's and Ubuntu's package that depends on the stock kernel."""
KERNEL_PARTS = ("linux-image-[0-9]*", "linux-modules-[0-9]*")

NOT_NEEDED = (
    "perl*", "libperl*", "dpkg", "libicu*", "libxml2", "libwireshark[0-9]*", "libwireshark-data", "usrmerge", "debconf",
    "adduser", "passwd", "init-system-helpers", "install-info", "libpython3.*-testsuite", "libdb[0-9]*",
    "libgdbm*", "libx11*", "libgtk*",
)  # fmt: skip
"""Packages that others depend on for their installation or for functions that no run uses."""
LEFT_OUT = (
    "usr/share/doc*", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/zoneinfo",
    "usr/share/bash-completion", "usr/share/perl*", "usr/share/i18n", "usr/share/wireshark", "usr/share/icons",
    "usr/share/mime", "usr/lib/*/gconv", "usr/lib/*/perl*", "usr/lib/python3*/test", "usr/lib/python3*/idlelib",
    "usr/lib/python3*/ensurepip", "usr/lib/python3*/lib2to3", "usr/lib/python3*/pydoc_data", "usr/lib/udev", "usr/lib/systemd",
    "usr/lib/*/wireshark/*", "boot", "var/cache/*", "var/lib/apt",
)  # fmt: skip

MODULES = (
    "kernel/net/", "kernel/crypto/", "kernel/lib/", "kernel/arch/x86/crypto/",
    "kernel/drivers/net/*", "kernel/drivers/net/bonding/", "kernel/drivers/net/vxlan/", "kernel/drivers/net/wireguard/",
    "kernel/drivers/net/ipvlan/", "kernel/drivers/net/netdevsim/",
    "kernel/drivers/net/wireless/mac80211_hwsim*", "kernel/drivers/net/wireless/virtual/",
    "kernel/drivers/virtio/", "kernel/drivers/char/virtio_console*",
    "kernel/fs/overlayfs/", "kernel/drivers/block/loop*",
)  # fmt: skip
"""Modules that stay, with all that they depend on; a name that ends in / means all that is below."""
EARLY_MODULES = ("virtio_pci", "virtio_console", "virtio_pmem", "nd_pmem", "crc32c_generic", "ext4", "overlay")
"""What the guest needs before it has its root file system, in the order in which it is loaded."""
MODULES_LEFT_OUT = ("kernel/net/bluetooth/", "kernel/net/nfc/", "kernel/net/ceph/", "kernel/net/sunrpc/", "kernel/net/9p/",
                    "kernel/net/rxrpc/", "kernel/net/smc/", "kernel/net/tipc/", "kernel/net/batman-adv/")  # fmt: skip

PYTHON = ("mininet", "pyroute2", "scapy", "click", "rich", "setuptools", "packaging")
"""Distributions that runs import; what they need comes with them. The analysis is made on the host."""
PYTHON_NAMED = ("roamlab", "pandas", "numpy", "matplotlib")
"""Distributions of which the guest only knows the version, for the manifest."""

LINKS: Mapping[str, str] = {
    "usr/sbin/iptables": "xtables-nft-multi", "usr/sbin/iptables-save": "xtables-nft-multi",
    "usr/sbin/iptables-restore": "xtables-nft-multi", "usr/sbin/ip6tables": "xtables-nft-multi",
    "usr/sbin/ip6tables-save": "xtables-nft-multi", "usr/sbin/ip6tables-restore": "xtables-nft-multi",
    "usr/bin/awk": "mawk", "usr/bin/which": "which.debianutils",
}  # fmt: skip
"""What the packages' own scripts would have linked."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Does a name match one of the patterns (* matches slashes as well)?"""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def module_matches(path: str, patterns: Iterable[str]) -> bool:
    """Is a module's path below one of the folders, or matched by one of the patterns (* does not match slashes)?"""
    return any(path.startswith(p) if p.endswith("/") else PurePosixPath(path).match(p) for p in patterns)


def python_distributions(roots: Iterable[str] = PYTHON) -> list[str]:
    """The distributions and all that they require here, without extras; sorted. Raises PackageNotFoundError."""
    found: dict[str, None] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop().lower()
        if name in found:
            continue
        found[name] = None
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return sorted(found)
