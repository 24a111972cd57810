#!/bin/sh
# Runs the image that build_locally.sh has built as Kubernetes would, and measures it: `make image-local` ends with this.
# As user 10001, on a root that can't be written, without capabilities or new privileges, with a network of its own; the
# embedded database on a tmpfs. It ends once a client inside has got a token and the service has stopped.
#   needs root, buildah, util-linux and iproute2
set -eu
FOLDER=$(realpath "$1") IMAGE=$2
image() { buildah --storage-driver vfs --root "$FOLDER/store" --runroot "$FOLDER/run" "$@"; }

inside() { # in namespaces of its own: $ROOT is the image's root
    ip link set lo up
    mount --bind "$ROOT" "$ROOT"
    for each in /tmp /var/lib/artstore; do
        mount -t tmpfs -o mode=0700,uid=10001,gid=10001 tmpfs "$ROOT$each"
    done
    mount --rbind /dev "$ROOT/dev"
    mount -t proc proc "$ROOT/proc"
    mount -o remount,ro,bind "$ROOT"
    as_user artstore-grpc serve >"$ROOT/tmp/log" 2>&1 &
    service=$! started=$(date +%s%N)
    until grep -q '"event":"ready"' "$ROOT/tmp/log"; do
        kill -0 $service || { cat "$ROOT/tmp/log"; exit 1; }
        sleep 0.05
    done
    echo "ready after $((($(date +%s%N) - started) / 1000000)) ms"
    ! (as_user touch /opt/artstore/written) 2>/dev/null || { echo "The root can be written."; exit 1; }
    ! (as_user /opt/artstore/bin/python -c 'import pip') 2>/dev/null || { echo "There is a pip."; exit 1; }
    (as_user grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/self/status)
    (as_user artstore-grpc health)
    as_user sh -c '. ./administrator.env; export ARTSTORE_CLIENT_ID ARTSTORE_CLIENT_SECRET; artstore-grpc token' |
        { IFS= read -r token; echo "a token of ${#token} characters"; }
    kill -TERM $service
    wait $service
    echo "stopped with 0"
}

as_user() { # becomes a command as the image's user, with the image's environment: call it in a subshell
    exec chroot "$ROOT" /usr/bin/env -i $VARIABLES ARTSTORE_INSECURE_PUBLIC=true ARTSTORE_ISSUER=http://identity.example \
        setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
        env --chdir=/var/lib/artstore "$@"
}

if [ "${3:-}" = inside ]; then
    inside
    exit
fi
VARIABLES=$(image inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$IMAGE")
container=$(image from --pull-never "$IMAGE")
trap 'image rm "$container" >/dev/null' EXIT
ROOT=$(image mount "$container")
export VARIABLES ROOT
unshare --mount --net --pid --fork "$0" "$FOLDER" "$IMAGE" inside

rm -rf "$FOLDER/layers"
image push --quiet "$IMAGE" "oci:$FOLDER/layers"
python3 - "$FOLDER/layers" <<'PYTHON'
import gzip, json, sys
from pathlib import Path

def blob(digest):
    return Path(sys.argv[1], "blobs/sha256", digest.removeprefix("sha256:"))

index = json.loads(Path(sys.argv[1], "index.json").read_text())
manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
for name, layer in zip(("the base", "our layer"), manifest["layers"], strict=True):
    size = len(gzip.decompress(blob(layer["digest"]).read_bytes()))
    print(f"{name}: {size / 1e6:.1f} MB, compressed {layer['size'] / 1e6:.1f} MB")
PYTHON
