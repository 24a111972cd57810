#!/bin/sh
# Downloads every pin of the image for both architectures, as wheels only: fails if one would have to be compiled.
# Asks PyPI; `make image-wheels`. The base has CPython 3.11 and glibc 2.36 (Debian 12).
set -eu
python=$1 folder=$2
for machine in x86_64 aarch64; do
    platforms="--platform manylinux2014_$machine"
    for minor in $(seq 17 36); do
        platforms="$platforms --platform manylinux_2_${minor}_$machine"
    done
    for lock in build run; do
        # shellcheck disable=SC2086 # words
        "$python" -m pip --disable-pip-version-check download --quiet --no-deps --only-binary=:all: --require-hashes \
            --implementation cp --python-version 3.11 $platforms --dest "$folder/$machine" -r "requirements/$lock.txt"
    done
    echo "$machine: $(find "$folder/$machine" -name '*.whl' | wc -l) wheels, $(find "$folder/$machine" -name "*_$machine*.whl" | wc -l) of them for this machine alone"
done
