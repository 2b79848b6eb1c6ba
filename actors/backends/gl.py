"""The OpenGL that MuJoCo's renderers draw with: which is on this machine, and what is missing for it."""

from __future__ import annotations

import ctypes
import os

# What MUJOCO_GL may be: the library that is loaded, and the Debian package that has it.
LIBRARIES = {
    "egl": ("libEGL.so.1", "libegl1"),
    "osmesa": ("libOSMesa.so.8", "libosmesa6"),
    "glfw": ("libGL.so.1", "libgl1"),
}
NO_RENDERER = ("", "disabled", "disable", "off", "false", "0")  # as it is set for training, which renders nothing
# Backends that cannot be imported where MUJOCO_GL names an OpenGL that is missing.
READERS = ("dm_control", "humanoid-bench", "shadow-hand")


class NoRenderer(RuntimeError):
    """Nothing can be drawn here; the message is one sentence with the way out."""


def usable(wanted: str) -> str:
    """The value of MUJOCO_GL to draw with: the one wanted, or of none egl or else osmesa. Raises NoRenderer."""
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
    """What a renderer lacks on this machine; "" if nothing."""
    library, package = LIBRARIES[name]
    if name == "glfw" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "it needs a display, and neither DISPLAY nor WAYLAND_DISPLAY names one"
    try:
        ctypes.CDLL(library)
    except OSError:
        return f"{library} is not found, install Debian's {package}"
    return ""


def load(name: str) -> None:
    """Load a renderer's library for the whole process: envpool aborts where none is before it renders."""
    ctypes.CDLL(LIBRARIES[name][0], mode=ctypes.RTLD_GLOBAL)
