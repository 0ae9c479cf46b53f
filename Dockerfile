# the newest patch release of this tag; docs/deploying.md says how to pin a digest
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/patients-api
WORKDIR /src
# dependencies first: they change less often than the code, and their layer is kept
COPY requirements.lock requirements-build.lock ./
RUN /opt/patients-api/bin/pip install --require-hashes --no-deps -r requirements.lock -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY migrations ./migrations
RUN /opt/patients-api/bin/pip install --no-deps --no-build-isolation . \
    && /opt/patients-api/bin/python -m compileall -q /opt/patients-api/lib \
    && /opt/patients-api/bin/pip uninstall --yes setuptools pip

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Patients API" \
      org.opencontainers.image.description="Keeps a clinic group's patients" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/patients-api /opt/patients-api
# no writing of bytecode: the root file system may be read-only
ENV PATH=/opt/patients-api/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["patients-api", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["patients-api"]
CMD ["serve", "--host", "0.0.0.0"]
