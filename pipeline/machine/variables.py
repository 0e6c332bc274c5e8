"""Variables of this process's environment, set for a while and put back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pipeline.masking import names_secret


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[Mapping[str, str | None]]:
    """Context in which the variables have these values; yields what they were before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield before
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


HANDED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SYSTEMROOT"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    *("TRANSFORMERS_OFFLINE", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME"),
    *("NVIDIA_TF32_OVERRIDE", "DISABLE_ADDMM_CUDA_LT", "NPY_DISABLE_CPU_FEATURES"),
)
"""Variables of the environment that workers in other processes have as the driver has them."""

HANDED_ON_FAMILIES = (
    *("LC_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "ATEN_", "DNNL_", "ONEDNN_", "KMP_", "GOMP_"),
    *("NUMBA_", "PYTORCH_", "TORCH_", "TRITON_", "CUBLAS_", "CUDNN_", "THP_", "MALLOC_", "NCCL_"),
    "RAY_",
)
"""What the names of further ones begin with: they choose code of libraries and Python."""


def handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that workers get: those named here, none that may hold an access key."""
    return {
        name: value
        for name, value in environment.items()
        if (name in HANDED_ON or name.startswith(HANDED_ON_FAMILIES)) and not names_secret(name)
    }


PLACES = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"),
    *("CONDA_PREFIX", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SYSTEMROOT", "CUDA_HOME"),
    *("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"),
)
"""Those that say where something is, which is elsewhere on another machine."""


def without_places(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that mean the same on another machine."""
    return {
        name: value
        for name, value in environment.items()
        if name not in PLACES and not name.startswith("PYTHON")
    }


@contextmanager
def only(values: Mapping[str, str]) -> Iterator[None]:
    """Context in which the environment is these variables and no others."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
