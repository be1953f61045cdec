#!/usr/bin/env bash
# Copy the results of the Vagrant machine to results/vagrant/ and name the newest report.
#   tools/vagrant/results.sh [MACHINE]
# Only what is not here yet is transferred; nothing here is removed.
set -euo pipefail
cd "$(dirname "$0")/../.."
machine="${1:-default}"
target=results/vagrant

for program in vagrant rsync; do
  command -v "$program" >/dev/null || { echo "roamlab vagrant-results: $program is not installed (Debian package $program)" >&2; exit 1; }
done
echo "roamlab vagrant-results: asking the machine"
config="$(mktemp)"
trap 'rm -f "$config"' EXIT
vagrant ssh-config "$machine" >"$config" || { echo "roamlab vagrant-results: no running machine here: vagrant up" >&2; exit 1; }
if ! ssh -F "$config" "$machine" test -d /vagrant/results; then
  echo "roamlab vagrant-results: the machine has no results yet: vagrant ssh -c 'make -C /vagrant demo'"
  exit 0
fi
mkdir -p "$target"
rsync -a --exclude '*.partial' -e "ssh -F $config" "$machine:/vagrant/results/" "$target/"
newest="$(find "$target" -mindepth 2 -maxdepth 2 -name '*.html' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)"
echo "roamlab vagrant-results: copied to $target/${newest:+; the newest report: file://$PWD/$newest}"
