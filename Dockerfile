# repix and its exact environment, for the CPU, installed by the project's own set-up:
#   docker build -t repix .
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD":/project repix bash
# and there `repix init my-project`, or `dvc repro` in a project.
FROM python:3.11-slim-bookworm
# A mounted folder belongs to the user outside, whom git in here does not know.
# Without versions: Debian keeps one of each for as long as a release lives.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory '*'
WORKDIR /repix
COPY . .
# Where torch comes from, as in docs/setup.md: --build-arg REPIX_TORCH=registry, or another index.
ARG REPIX_TORCH=auto
# Byte code once: a user without write access would compile TensorFlow anew in each process.
RUN make setup && (.venv/bin/python -m compileall -q -j 0 .venv/lib src || true)
ENV PATH=/repix/.venv/bin:$PATH HOME=/tmp
WORKDIR /project
CMD ["repix", "doctor"]
