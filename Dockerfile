# Two images of one code location:
#   docker build --target code   -t batch-assets:<tag> .         webserver, daemon, code server, runs that only submit and collect
#   docker build --target worker -t batch-assets-worker:<tag> .  the same with torch and Ray: runs that compute, nodes of a
#                                                                Ray cluster
# The webserver and the daemon are the same image with another command:
#   dagster-webserver -h 0.0.0.0 -p 3000 -w workspace.yaml      dagster-daemon run -w workspace.yaml

FROM python:3.11-slim AS code

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DAGSTER_HOME=/opt/dagster \
    DAGSTER_EVENT_BATCH_SIZE=500

WORKDIR /opt/batch-assets

# An empty package stands in for the code, so that this layer lasts until the list or the pins change.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir batch_assets \
    && touch batch_assets/__init__.py \
    && pip install --constraint constraints.txt ".[postgres,redis]" \
    && pip uninstall --yes batch-assets

# Editable: Dagster finds the project, and with it the defs folder, by the pyproject.toml above the package.
COPY batch_assets batch_assets
RUN pip install --no-deps --editable .

COPY workspace.yaml ./
COPY dagster.yaml /opt/dagster/dagster.yaml
# Numeric, so that a cluster can check that it is not root.
RUN useradd --uid 10001 --create-home batch \
    && chown -R batch:batch /opt/dagster

USER 10001
EXPOSE 4000
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
    CMD ["dagster", "api", "grpc-health-check", "--port", "4000"]
CMD ["dagster", "code-server", "start", "--host", "0.0.0.0", "--port", "4000", "--module-name", "batch_assets.definitions"]


FROM code AS worker

USER 0
# ray[default] has the dashboard, which KubeRay asks whether a node is well.
RUN pip install --constraint constraints.txt --editable ".[ray]" "ray[default]"
USER 10001
