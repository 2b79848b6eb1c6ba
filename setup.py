"""Build step that pyproject.toml cannot express: compile the kernels if there is a C compiler, else omit them."""

import sys

from setuptools import Extension, setup

# Threads of OpenMP are those of torch, which brings the library. Apple's compiler has no OpenMP.
OPENMP = [] if sys.platform == "darwin" else ["-fopenmp"]

setup(
    ext_modules=[
        Extension("replay.store._gather", ["replay/store/gather.c"], extra_compile_args=["-O3"], optional=True),
        Extension(
            "learner.networks._norm",
            ["learner/networks/norm.c"],
            extra_compile_args=["-O3", "-fno-math-errno", "-Wno-psabi", *OPENMP],
            extra_link_args=OPENMP,
            optional=True,
        ),
    ]
)
