# The service in a container. `docker build -t petalpaw .` is for CPUs, `--target cuda` for GPUs.
#
#   docker run --read-only --tmpfs /tmp -p 3000:3000 petalpaw                       serves the shipped models
#   docker run --read-only --tmpfs /tmp -p 3000:3000 -v "$PWD/models:/models:ro" …  serves yours
#   docker run --rm -v "$PWD:/data" petalpaw score /data/photos -m catdog           any other command
#
# Layers, largest and steadiest first: dependencies, models, the project's own code. Everything that is copied into
# them is dated alike, and Python is compiled without dates, so that the same sources give the same layers.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore PYTHONHASHSEED=0
# From Debian; the base image decides which release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
RUN python -m venv --without-pip /opt/petalpaw
WORKDIR /source
COPY deploy/layer.sh /usr/local/bin/layer

FROM build AS dependencies
COPY requirements/serve.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/petalpaw/bin/python install --quiet --require-hashes -r requirements/serve.txt

# The project, built with the locked setuptools and without fetching anything; then that can go.
FROM dependencies AS project
COPY pyproject.toml README.md LICENSE petalpaw.py ./
COPY commands commands
COPY evaluation evaluation
COPY inference inference
COPY scoring scoring
COPY service service
COPY training training
RUN pip --python /opt/petalpaw/bin/python install --quiet --no-cache-dir --no-deps --no-build-isolation --prefix /layer/opt/petalpaw . \
    && layer

# Without the CUDA provider: 285 MB that no CPU can use. (On ARM the lock has an ONNX Runtime that brings none.)
FROM dependencies AS dependencies-cpu
RUN pip --python /opt/petalpaw/bin/python uninstall --quiet --yes setuptools \
    && rm -f /opt/petalpaw/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so \
             /opt/petalpaw/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime_providers_tensorrt.so \
    && layer /opt/petalpaw

FROM dependencies AS dependencies-cuda
COPY requirements/cuda.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/petalpaw/bin/python install --quiet --require-hashes -r requirements/cuda.txt \
    && pip --python /opt/petalpaw/bin/python uninstall --quiet --yes setuptools \
    && layer /opt/petalpaw

FROM build AS models
COPY models /models
RUN layer /models

# An init, and what the base image leaves uncompiled and a read-only container could never keep: Python's own library.
FROM build AS library
RUN layer --library /usr/bin/tini

FROM ${BASE_IMAGE} AS base
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Petalpaw" \
      org.opencontainers.image.description="Image classification over HTTP that gives PyTorch's answers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/petalpaw/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PETALPAW_MODELS=/models \
    HOME=/tmp \
    BENTOML_HOME=/tmp/bentoml \
    BENTOML_DO_NOT_TRACK=True \
    PORT=3000
COPY --from=library /layer /
# A number, not a name: Kubernetes' runAsNonRoot understands it, and any other number works as well.
USER 10001:10001
WORKDIR /tmp
EXPOSE 3000
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-ISc", "\
import http.client, os; \
server = http.client.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=2); \
server.request('GET', '/readyz'); \
raise SystemExit(server.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "petalpaw"]
CMD ["serve", "--host", "0.0.0.0"]

FROM base AS cuda
COPY --from=dependencies-cuda /layer /
COPY --from=models /layer /
COPY --from=project /layer /
# The CUDA libraries come from the wheels, the driver from the host by the NVIDIA container toolkit.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The last target is what `docker build .` makes.
FROM base AS cpu
COPY --from=dependencies-cpu /layer /
COPY --from=models /layer /
COPY --from=project /layer /
ENV PETALPAW_DEVICE=cpu
