# repix and its exact environment, for the CPU:
#   docker build -t repix .
#   docker run --rm -it --user "$(id -u):$(id -g)" -v "$PWD":/work repix bash
# and there `repix init my-project`, or `dvc repro` in a project.
FROM python:3.11-slim-bookworm
# A mounted folder belongs to the user outside, whom git in here does not know.
# Without versions: Debian keeps one of each for as long as a release lives.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory '*'
WORKDIR /opt/repix
COPY constraints.txt ./
# In a layer of its own, from PyTorch's index of CPU builds; --build-arg TORCH_INDEX= for another one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN grep -E '^torch(vision)?==' constraints.txt >torch.txt \
    && pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" --requirement torch.txt
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt .
ENV HOME=/tmp
WORKDIR /work
CMD ["repix", "doctor"]
