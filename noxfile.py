"""Sessions shared by developers and CI: `nox -s lint types tests core torch`; `nox -s nightly` by night."""

import ctypes
import os
import shutil

import nox

nox.options.sessions = ["lint", "types", "tests", "core", "torch"]
nox.options.error_on_missing_interpreters = True
nox.options.reuse_existing_virtualenvs = True

os.environ["SKBUILD_CMAKE_DEFINE"] = "CCX_CUDA=OFF"  # nothing is compiled by what the machine has
PYPROJECT = nox.project.load_toml("pyproject.toml")
TORCH = ("torch==2.14.1", "torchvision==0.29.1")
OPTIONAL = "coco,h5py,zarr,logic,pandas,matplotlib,sklearn,kmeans1d"
ALL = f"torch,torchvision,{OPTIONAL}"
PARALLEL = ("-n", "auto", "--dist", "worksteal")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and the one-way layers."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Static types, strict."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Everything that needs no torch, with all other optional libraries."""
    session.install(".[test]")
    session.run("pytest", *PARALLEL, *session.posargs, env={"CCX_REQUIRE": f"{OPTIONAL},gxx"})


@nox.session
def core(session: nox.Session) -> None:
    """The tests with the core install alone: what needs an optional library is skipped, with its reason."""
    session.install(".", "pytest", "hypothesis", "pytest-benchmark", "pytest-xdist")
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """The tests that need torch."""
    session.install(*TORCH)
    session.install(".[test]")
    session.run(
        "pytest",
        *PARALLEL,
        "-m",
        "needs",
        *session.posargs,
        env={"CCX_REQUIRE": ALL},
    )


@nox.session
def bounds(session: nox.Session) -> None:
    """All tests with numba's bounds checks: no kernel may touch what is not its own."""
    session.install(*TORCH)
    session.install(".[test]")
    env = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": session.create_tmp(), "CCX_HYPOTHESIS": "quick"}
    session.run("pytest", *PARALLEL, *session.posargs, env=env)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, into ``docs/_build``; broken links, and pages that no table of contents lists, are errors."""
    session.install(".[docs]")
    session.run("sphinx-build", "-q", "-E", "-W", "--keep-going", "-b", "html", "docs", "docs/_build", *session.posargs)


@nox.session
def nightly(session: nox.Session) -> None:
    """The long Hypothesis profiles: 10,000 examples per property; all attacks; then every test with bounds checks."""
    session.install(*TORCH)
    session.install(".[test]")
    env = {"CCX_HYPOTHESIS": "nightly", "CCX_REQUIRE": ALL}
    session.run("pytest", *PARALLEL, *session.posargs, env=env)
    session.notify("bounds")


@nox.session
def cuda(session: nox.Session) -> None:
    """The CUDA kernels compiled for seven GPUs, by nvcc and NVRTC of pinned versions; needs g++, no GPU."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "cuda-compilers"))
    session.install(".", "pytest", "hypothesis", "pytest-benchmark")
    compiled = "tests/kernels/cuda/test_cuda_compile.py"
    session.run("pytest", compiled, *session.posargs, env={"CCX_REQUIRE": "nvcc,nvrtc"})


@nox.session
def gpu(session: nox.Session) -> None:
    """On a real GPU, and failing without one: its tests, and a report in gpu-report.md; `-- 12` for CUDA 12."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        session.error(f"needs an NVIDIA GPU and its driver: {error}")
    version, *more = session.posargs or ["13"]
    session.install(*nox.project.dependency_groups(PYPROJECT, "cuda-compilers"))
    where = "from tests.support.cuda_compilers import BIN; print(BIN / 'nvcc')"
    nvcc = session.run("python", "-c", where, silent=True).strip()
    ahead = {"SKBUILD_CMAKE_DEFINE": f"CCX_CUDA=ON;CCX_NVCC={nvcc}"}
    session.install(f".[cupy-cuda{version}x]", "pytest", "hypothesis", "pytest-benchmark", env=ahead)
    session.run("pytest", "-m", "gpu", "tests/kernels/cuda/test_gpu.py", env={"CCX_REQUIRE": "fatbins"})
    session.run("python", "benchmarks/gpu.py", *more)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks of every primitive, checked before they are timed, and a whole layer."""
    session.install(".[bench,test]")
    session.run("python", "-m", "pytest", "benchmarks", "--benchmark-enable", "--benchmark-only", *session.posargs)
    session.run("python", "benchmarks/layer.py")
    session.run("python", "benchmarks/chance.py")
    session.run("python", "benchmarks/datasets.py")


@nox.session
def build(session: nox.Session) -> None:
    """A pure wheel and a source distribution, in ``dist/``, with no compiler."""
    session.install("build")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", env={"CC": "/bin/false", "CXX": "/bin/false"})
