"""Finds the OpenGL library of this machine for MuJoCo's renderers, and says what is missing."""

from __future__ import annotations

import ctypes
import os

# Values of MUJOCO_GL: the library that is loaded, and the Debian package that has it.
LIBRARIES = {
    "egl": ("libEGL.so.1", "libegl1"),
    "osmesa": ("libOSMesa.so.8", "libosmesa6"),
    "glfw": ("libGL.so.1", "libgl1"),
}
NO_RENDERER = ("", "disabled", "disable", "off", "false", "0")  # values of MUJOCO_GL for training without rendering
# Backends that cannot be imported if MUJOCO_GL names an OpenGL library that is missing.
READERS = ("dm_control", "humanoid-bench", "shadow-hand")


class NoRenderer(RuntimeError):
    """Nothing can be rendered here. The message is one sentence that says what to do."""


def usable(wanted: str) -> str:
    """Return the value of MUJOCO_GL to draw with: `wanted`, or, if that names no renderer, egl or else osmesa. Raises
    NoRenderer."""
    if wanted.lower() in NO_RENDERER:
        for found in ("egl", "osmesa"):
            if not missing(found):
                return found
        raise NoRenderer("no OpenGL is found to draw with: install Debian's libegl1, or libosmesa6")
    chosen = wanted.lower()
    if chosen not in LIBRARIES:
        raise NoRenderer(f"MUJOCO_GL={wanted} is no renderer: use egl, osmesa, or glfw where there is a display")
    if lack := missing(chosen):
        others = [name for name in ("egl", "osmesa") if name != chosen and not missing(name)]
        instead = f", or use MUJOCO_GL={others[0]}, which is here" if others else ""
        raise NoRenderer(f"MUJOCO_GL={wanted} cannot be loaded: {lack}{instead}")
    return chosen


def missing(name: str) -> str:
    """Return what a renderer lacks on this machine; "" if nothing."""
    library, package = LIBRARIES[name]
    if name == "glfw" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "it needs a display, and neither DISPLAY nor WAYLAND_DISPLAY names one"
    try:
        ctypes.CDLL(library)
    except OSError:
        return f"{library} is not found, install Debian's {package}"
    return ""


def load(name: str) -> None:
    """Load a renderer's library for the whole process: envpool aborts if none is loaded before it renders."""
    ctypes.CDLL(LIBRARIES[name][0], mode=ctypes.RTLD_GLOBAL)
