# The service in an image: built in the first stage, where the build tools stay; run as user 10001.
#   docker build -t artstore-grpc .
# It listens beyond the loopback, and so starts with a certificate (ARTSTORE_TLS_CERTIFICATE_FILE, ARTSTORE_TLS_KEY_FILE)
# or where somebody says that a mesh or an ingress encrypts (ARTSTORE_INSECURE_PUBLIC=true), never silently without.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/artstore
COPY requirements/build.txt requirements/run.txt requirements/
RUN /build/bin/pip install --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/artstore/bin/python install --require-hashes -r requirements/run.txt
COPY . .
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
 && /build/bin/pip --python /opt/artstore/bin/python install --no-deps --no-index /wheels/*.whl

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="artstore-grpc" \
      org.opencontainers.image.description="The ArtStore identity service: service accounts and OAuth 2.0 tokens over gRPC and REST" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/artstore /opt/artstore
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/artstore
ENV PATH=/opt/artstore/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ARTSTORE_DATA_DIR=/var/lib/artstore \
    ARTSTORE_GRPC_ADDRESS=0.0.0.0:50051 \
    ARTSTORE_GATEWAY_ADDRESS=0.0.0.0:8080 \
    ARTSTORE_METRICS_ADDRESS=0.0.0.0:9464
VOLUME /var/lib/artstore
EXPOSE 50051 8080 9464
USER 10001:10001
WORKDIR /var/lib/artstore
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["artstore-grpc", "health"]
ENTRYPOINT ["artstore-grpc"]
CMD ["serve"]
