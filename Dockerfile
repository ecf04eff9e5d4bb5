# The service on a CPU. Models and catalogs are mounted, not built in:
#   docker build --tag incatalog .
#   docker run --publish 127.0.0.1:8000:8000 --volume $PWD/runs:/runs:ro incatalog \
#       --model /runs/study/cgen --keys /runs/keys.json
FROM python:3.11-slim
ENV PYTHONDONTWRITEBYTECODE=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY recipes ./recipes
COPY src ./src
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir --constraint constraints.txt '.[serve,postgres]' \
    && useradd --create-home --uid 10001 incatalog \
    && mkdir /state && chown incatalog /state
USER incatalog
EXPOSE 8000
VOLUME /state
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["incatalog", "serve", "--host", "0.0.0.0", "--state", "/state/catalogs.sqlite"]
