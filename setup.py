"""Build step that pyproject.toml cannot express: compile the kernel if there is a C compiler, else omit it."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("replay.store._gather", ["replay/store/gather.c"], extra_compile_args=["-O3"], optional=True)
    ]
)
