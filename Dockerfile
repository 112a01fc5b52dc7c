# Builds the one image of Rejoin; `api` (the default) or `worker` as its command says which side runs.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt pyproject.toml ./
# What Rejoin needs is a layer of its own: a change of its code builds in seconds.
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > needed.txt \
    && pip install --quiet -c constraints.txt setuptools \
    && python -m venv --without-pip /opt/rejoin \
    && pip --python /opt/rejoin/bin/python install --quiet -c constraints.txt -r needed.txt
COPY README.md LICENSE ./
COPY api api
COPY client client
COPY shared shared
COPY worker worker
RUN pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip --python /opt/rejoin/bin/python install --quiet --no-deps --no-index wheels/*.whl

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /var/lib/rejoin rejoin \
    && install -d -o rejoin /var/lib/rejoin
COPY --from=build /opt/rejoin /opt/rejoin
ENV PATH=/opt/rejoin/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    REJOIN_DATA_DIR=/var/lib/rejoin
WORKDIR /var/lib/rejoin
USER rejoin
STOPSIGNAL SIGTERM
# No shell in between: `rejoin api` replaces itself by the API, so that is what hears SIGTERM.
ENTRYPOINT ["rejoin"]
CMD ["api"]
