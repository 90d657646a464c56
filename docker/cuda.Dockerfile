# SlimBench on an NVIDIA GPU: `docker build -f docker/cuda.Dockerfile -t slimbench:cuda .`, then
# `docker run --rm --gpus all slimbench:cuda run --all --device cuda`. The host needs the driver and NVIDIA's container
# toolkit; CUDA itself comes with torch's wheels.
FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="SlimBench CUDA" \
      org.opencontainers.image.description="A benchmark suite for compressing convolutional networks, on a GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

# where torch is found, built for a CUDA that the host's driver supports
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# OpenCV, which mmsegmentation and basicsr decode with, links them; Debian keeps no older versions to pin
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*

WORKDIR /slimbench
COPY constraints.txt ./
RUN pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" \
      torch torchvision setuptools wheel \
 && pip install --constraint constraints.txt --no-build-isolation basicsr
COPY . .
RUN pip install --constraint constraints.txt . \
 && useradd --uid 1000 --create-home bench && mkdir /records && chown bench /records

USER 1000
WORKDIR /records
ENTRYPOINT ["bench"]
CMD ["run", "--all", "--device", "cuda"]
