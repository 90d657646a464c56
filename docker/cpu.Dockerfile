# SlimBench on a CPU: `docker build -f docker/cpu.Dockerfile -t slimbench:cpu .`, then `docker run --rm slimbench:cpu`.
# Records go to /records: mount a volume there to keep them. Data: mount them and set BENCH_DATA.
FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="SlimBench" \
      org.opencontainers.image.description="A benchmark suite for compressing convolutional networks, on a CPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

# where a CPU build of torch is found; empty: pip's own index
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# OpenCV, which mmsegmentation and basicsr decode with, links them; Debian keeps no older versions to pin
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*

WORKDIR /slimbench
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
      torch torchvision setuptools wheel \
 && pip install --constraint constraints.txt --no-build-isolation basicsr
COPY . .
RUN pip install --constraint constraints.txt . \
 && useradd --uid 1000 --create-home bench && mkdir /records && chown bench /records

USER 1000
WORKDIR /records
ENTRYPOINT ["bench"]
CMD ["run", "--all"]
