# The machine of the profile `edge_container`: Python and ONNX Runtime, nothing else. Networks and agent are mounted.
# `docker build -f docker/edge.Dockerfile -t slimbench-edge:1 .`
FROM python:3.11.14-slim-bookworm

LABEL org.opencontainers.image.title="SlimBench edge" \
      org.opencontainers.image.description="Runs two ONNX files interleaved, for the hardware profile edge_container" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="1"

COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --disable-pip-version-check --constraint /tmp/constraints.txt numpy onnxruntime \
 && rm /tmp/constraints.txt

USER 65534
ENTRYPOINT ["python3", "-B", "/edge/agent.py"]
CMD ["/edge"]
