"""Folders on a disk or at a URL that fsspec supports. All names are literal: brackets and stars are no patterns.

Some of fsspec's own methods (`glob`, `rm`, `mv`, `copy`, `expand_path`) interpret their arguments as patterns.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import fsspec


def open_url(url: str) -> tuple[Any, str]:
    """Return the file system of a URL or a local path, and the path in it. A local path has no protocol."""
    if "://" not in url:  # fsspec would split a path with :: into several URLs
        return fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(url))
    protocol = url.partition("://")[0]
    if "::" in protocol or any("://" in part for part in url.split("::")[1:]):  # nested file systems
        files, root = fsspec.core.url_to_fs(url)
        return files, root
    kind = fsspec.get_filesystem_class(protocol)
    return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)  # url_to_fs would split at any ::


def is_local(files: Any) -> bool:
    return "file" in files.protocol


def names_in(files: Any, folder: str) -> list[str]:
    """Return the sorted names of all files and folders in a folder; [] if there is none. Caches are not used."""
    files.invalidate_cache()
    if not files.isdir(folder):
        return []
    return sorted(base(path) for path in files.ls(folder, detail=False))


def remove(files: Any, path: str) -> None:
    """Remove a file, or a folder with all its content."""
    if is_local(files):  # this file system takes names literally
        files.rm(path, recursive=True)
        return
    found = files.find(path, withdirs=True, detail=True)
    folders = [name for name, about in found.items() if about["type"] == "directory"]
    for name in found.keys() - set(folders):
        files.rm_file(name)
    for folder in sorted({*folders, path}, key=len, reverse=True):
        with suppress(OSError, NotImplementedError):  # where folders exist only as parts of file names, they are gone
            files.rmdir(folder)


def base(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
