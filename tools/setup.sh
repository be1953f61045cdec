#!/usr/bin/env bash
# Set up roamlab: system programs by package name, then a virtual environment from the lock file.
#   tools/setup.sh        what running experiments needs
#   tools/setup.sh test   what the tests need on top
# Idempotent; under 2 s when nothing is missing. Uses sudo only when not root and something is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
level="${1:-run}"

# program:package (Debian and Ubuntu names). None of these packages starts a daemon.
run_programs="mnexec:mininet ifconfig:net-tools ip:iproute2 tc:iproute2 unshare:util-linux setpriv:util-linux
  iperf3:iperf3 dumpcap:wireshark-common dnsmasq:dnsmasq-base udhcpc:udhcpc mptcpize:mptcpize
  ping:iputils-ping iptables:iptables nft:nftables pgrep:procps"
test_programs="tshark:tshark qemu-system-x86_64:qemu-system-x86 depmod:kmod mke2fs:e2fsprogs"
# The report is tested in a browser. Ubuntu's chromium packages only start a snap: there an installed browser is used, or none.
if ! command -v chromium chromium-browser google-chrome >/dev/null; then
  if grep -qs '^ID=ubuntu' /etc/os-release; then
    [ "$level" != test ] || echo "roamlab setup: no browser; the report's test in a browser is left out (install google-chrome to have it)"
  else
    test_programs="$test_programs chromium:chromium"
  fi
fi

wanted="$run_programs"
[ "$level" != test ] || wanted="$wanted $test_programs"

missing=()
for pair in $wanted; do
  command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done

# Prefer the distribution's Python: one below a home directory is not readable by other users.
python=""
for candidate in ${PYTHON:-} /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3; do
  if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
    python="$candidate"
    break
  fi
done
if [ -z "$python" ]; then
  missing+=(python3)
elif [ ! -x .venv/bin/python ] && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
  missing+=(python3-venv)
fi

install_packages() {
  local packages
  packages="$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')"
  if ! command -v apt-get >/dev/null; then
    echo "roamlab setup: this is not Debian or Ubuntu. Install these yourself and run again" >&2
    echo "  (Debian package names): $packages" >&2
    exit 1
  fi
  local run=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
      run=(sudo)
    else
      echo "roamlab setup: missing packages, and no right to install them. Ask an administrator to run:" >&2
      echo "  apt-get install --no-install-recommends $packages" >&2
      exit 1
    fi
  fi
  echo "roamlab setup: installing $packages"
  local log
  log="$(mktemp)"
  # shellcheck disable=SC2086  # the list is words
  if ! { "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
         "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages; } \
         >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "roamlab setup: apt-get failed; the whole log is in $log" >&2
    exit 1
  fi
  rm -f "$log"
}

[ "${#missing[@]}" -eq 0 ] || install_packages
[ -n "$python" ] || python=/usr/bin/python3

# The folder is part of the stamp: a moved or copied environment holds scripts with dead paths.
stamp="$(cat requirements.lock pyproject.toml <("$python" -V) <(pwd) | sha256sum | cut -d' ' -f1)"
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$stamp" ]; then
  echo "roamlab setup: building .venv from requirements.lock with $("$python" -V)"
  rm -rf .venv
  "$python" -m venv .venv
  log="$(mktemp)"
  if ! { .venv/bin/python -m pip install --disable-pip-version-check -q --require-hashes -r requirements.lock &&
         .venv/bin/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .; } \
         >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "roamlab setup: pip failed; the whole log is in $log" >&2
    exit 1
  fi
  rm -f "$log"
  echo "$stamp" > .venv/.stamp
fi
