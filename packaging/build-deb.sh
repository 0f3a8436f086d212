#!/bin/sh
# build-deb.sh FOLDER: build the package of the sources beside this script into FOLDER, on Debian 13 with the build dependencies.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin # no other Python
export PATH
here=$(CDPATH= cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
out=$(CDPATH= cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/pyproject.toml")
for said in "$(sed -n "1s/^mist (\(.*\)).*/\1/p" "$here/packaging/debian/changelog")" \
    "$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$here/mist/__init__.py")" \
    "$(sed -n "s/^  version: '\(.*\)',/\1/p" "$here/meson.build")"; do
    [ "$said" = "$version" ] || { echo "pyproject.toml says version $version, another file says $said" >&2; exit 1; }
done

mkdir "$work/mist"
(cd "$here" && tar -c --exclude=__pycache__ mist packaging docs LICENSE README.md CHANGELOG.md meson.build meson_options.txt pyproject.toml) |
    tar -x -C "$work/mist"
mv "$work/mist/packaging/debian" "$work/mist/debian"
cd "$work/mist"
dpkg-buildpackage -b -us -uc
cp "$work"/*.deb "$work"/*.changes "$work"/*.buildinfo "$out/"
