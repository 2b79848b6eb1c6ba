"""What pyproject.toml cannot say: the kernel is compiled where there is a C compiler, and done without elsewhere."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension("replay.store._gather", ["replay/store/gather.c"], extra_compile_args=["-O3"], optional=True)
    ]
)
