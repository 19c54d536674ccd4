# One image for every process: api, worker, dashboard and migrate differ in their command alone.
#
#   docker build -t ridgeline .                               CPU, from PyTorch's own index
#   docker build -t ridgeline-gpu --build-arg TORCH_INDEX= .  GPU: PyPI's wheels carry CUDA
#
# pip prefers PyTorch's own index, whose versions end in +cpu or +cu130, and takes torch from where it
# takes the rest when that index is out of reach or left empty.  All dependencies come as wheels.  The
# compiler is for workers, whose packs train several times as fast by compiled programs.
ARG PYTHON_VERSION=3.11

# The dependencies alone, so that other changes of pyproject.toml leave the slow layer as it is.
# What the build needs is among them: a change of the sources then downloads nothing.
FROM python:${PYTHON_VERSION}-slim AS requirements
COPY pyproject.toml /
RUN python <<END >/requirements.txt
import tomllib
with open("/pyproject.toml", "rb") as file:
    parts = tomllib.load(file)
project = parts["project"]
extras = project["optional-dependencies"]
needed = [*project["dependencies"], *extras["server"], *extras["artifacts"], *extras["data"], *extras["worker"]]
print(*parts["build-system"]["requires"], *needed, sep="\n")
END

FROM python:${PYTHON_VERSION}-slim
ENV PYTHONUNBUFFERED=1 PIP_ROOT_USER_ACTION=ignore

RUN apt-get update --quiet --quiet \
 && apt-get install --quiet --quiet --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*

# Numbered, so that Kubernetes' runAsNonRoot can tell.  The folders are for the tokens, the
# dashboard's socket, compiled programs and files of runs: a new named volume takes the owner and mode
# of the folder that it covers.
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ridgeline \
 && install --directory --owner=ridgeline --mode=700 /run/ridgeline /run/dashboard /var/cache/ridgeline /var/lib/ridgeline

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=requirements /requirements.txt /tmp/
RUN --mount=type=cache,target=/var/cache/pip \
    pip install --cache-dir /var/cache/pip --no-deps ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$(grep '^torch' /tmp/requirements.txt)" \
 && pip install --cache-dir /var/cache/pip --requirement /tmp/requirements.txt

# Writable, since the build leaves files beside the sources; they are thrown away.
RUN --mount=type=bind,target=/src,readwrite \
    pip install --no-cache-dir --no-deps --no-build-isolation /src

USER 10001
CMD ["ridgeline", "--help"]
