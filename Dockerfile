# Small, locked, not root. Build: docker build -t exeat .
#
# As it stands agents reach the proxy on loopback only, so the container shares the network namespace of the agents it
# serves: a sidecar in one pod, or `docker run --network container:AGENT`. For agents elsewhere say
# `exeat up --state /var/lib/exeat --listen-tls 0.0.0.0:8443 --name NAME` (docs/how-to/tls-listener.md).
# Volume /var/lib/exeat holds keys, secrets and the ledger; it must be durable storage, never tmpfs.

FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv==0.13.8
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/exeat UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock ./
RUN uv sync --locked --no-dev --no-install-project --no-cache
COPY README.md LICENSE ./
COPY control control
COPY proxy proxy
COPY rules rules
COPY credentials credentials
COPY ledger ledger
RUN uv sync --locked --no-dev --no-editable --no-cache

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/exeat --shell /usr/sbin/nologin exeat \
    && install -d -o exeat -g exeat -m 0700 /var/lib/exeat
COPY --from=build /opt/exeat /opt/exeat
ENV PATH=/opt/exeat/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER exeat
WORKDIR /var/lib/exeat
VOLUME /var/lib/exeat
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8081/healthz', timeout=2)"]
ENTRYPOINT ["exeat"]
CMD ["up", "--state", "/var/lib/exeat", "--listen", "127.0.0.1:8080", "--health", "127.0.0.1:8081"]
