#!/bin/sh
# Builds the image without Docker and without a registry: `make image-local`. For machines that reach Debian and PyPI
# only; what it builds by is the same Dockerfile.
# The base image is made here from Debian's packages, and stands in for python:3.11-slim-bookworm. Buildah's own storage
# is in build/image; root is needed. Then the image is run as Kubernetes would run it, until a client has a token, and
# measured: deploy/image/check.sh.
#   needs: buildah, mmdebstrap (apt-get install buildah mmdebstrap)
set -eu
cd "$(dirname "$0")/../.."
BASE=docker.io/library/python:3.11-slim-bookworm
FOLDER=${1:-$PWD/build/image}
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
mkdir -p "$FOLDER"
image() { buildah --storage-driver vfs --root "$FOLDER/store" --runroot "$FOLDER/run" "$@"; }

if ! image inspect "$BASE" >/dev/null 2>&1; then
    echo "Making the base image from Debian's packages."
    mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        bookworm "$FOLDER/base.tar"
    container=$(image from scratch)
    image add --quiet "$container" "$FOLDER/base.tar" / >/dev/null
    image config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    image commit --quiet --rm "$container" "$BASE" >/dev/null
    rm "$FOLDER/base.tar"
fi

# The certificates of this machine, since a proxy of its network may stand between it and PyPI.
image build --isolation chroot --pull-never --network host --format docker \
    --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --build-arg REVISION="$(git rev-parse HEAD)" --build-arg VERSION="$VERSION" \
    --tag "artstore-grpc:$VERSION" .
