FROM python:3.11-slim-bookworm

WORKDIR /app

# The dependencies first: this layer is built again only when pyproject.toml changes.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && pip install --no-cache-dir -r requirements.txt

COPY README.md LICENSE NOTICE ./
COPY speculation ./speculation
COPY cloud_verifier ./cloud_verifier
COPY device_agent ./device_agent
COPY outrider ./outrider
COPY models/pydoc ./models/pydoc
# docker build --build-arg EXTRAS=compiled: what else is installed, as in pip install 'outrider[compiled]'; several by commas.
ARG EXTRAS=
RUN pip install --no-cache-dir ".${EXTRAS:+[$EXTRAS]}" && rm -rf /app/* && useradd --create-home --uid 10001 outrider \
    && install --directory --owner outrider --mode 700 /keys

USER outrider
WORKDIR /home/outrider
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["outrider"]
CMD ["demo"]
