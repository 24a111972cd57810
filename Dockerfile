# The service in an image: built in the first stage, where pip and the build tools stay; run as user 10001.
#   make image          with Docker, Podman or Buildah: passes the arguments below
#   make image-local    without a registry: docs/image.md
# It listens beyond the loopback, and so starts with a certificate (ARTSTORE_TLS_CERTIFICATE_FILE, ARTSTORE_TLS_KEY_FILE)
# or where somebody says that a mesh or an ingress encrypts (ARTSTORE_INSECURE_PUBLIC=true), never silently without.

# The tag takes Python's and Debian's security updates with each build. For the same bytes every time give a digest:
# --build-arg BASE=python@sha256:…
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# For strip, below; of any version, since nothing of it stays.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/artstore
COPY requirements/build.txt requirements/run.txt requirements/
# Wheels only: nothing is compiled, so that no compiler is needed and each architecture gets what its publisher tested.
# Some come with the debugger's symbols: a third of all bytes.
RUN /build/bin/pip install --only-binary=:all: --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/artstore/bin/python install --only-binary=:all: --require-hashes -r requirements/run.txt \
 && find /opt/artstore -name '*.so' -exec strip --strip-debug {} +
COPY . .
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
 && /build/bin/pip --python /opt/artstore/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${BASE}
# What installs packages has no use in an image that is replaced whole. (The official base keeps its Python here.)
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/ensurepip /usr/local/lib/python3*/site-packages/* \
 && install -d -m 0700 -o 10001 -g 10001 /var/lib/artstore
COPY --from=build /opt/artstore /opt/artstore
ENV PATH=/opt/artstore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ARTSTORE_DATA_DIR=/var/lib/artstore \
    ARTSTORE_GRPC_ADDRESS=0.0.0.0:50051 \
    ARTSTORE_GATEWAY_ADDRESS=0.0.0.0:8080 \
    ARTSTORE_METRICS_ADDRESS=0.0.0.0:9464 \
    ARTSTORE_HEALTH_ADDRESS=127.0.0.1:8086
VOLUME /var/lib/artstore
EXPOSE 50051 8080 9464
USER 10001:10001
WORKDIR /var/lib/artstore
STOPSIGNAL SIGTERM
# It asks the port for probes, ARTSTORE_HEALTH_ADDRESS, which is plain text whatever the other doors have. A look costs
# most of a second of a core: it is Python that starts.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["artstore-grpc", "health"]
ENTRYPOINT ["artstore-grpc"]
CMD ["serve"]

# Last, so that a new revision changes no layer.
ARG REVISION=""
ARG SOURCE=""
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="artstore-grpc" \
      org.opencontainers.image.description="The ArtStore identity service: service accounts and OAuth 2.0 tokens over gRPC and REST" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11-slim-bookworm" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.version="${VERSION}"
