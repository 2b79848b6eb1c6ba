"""Folders on a disk, or at a URL that fsspec knows. All names are literal: brackets, stars and the like mean nothing.

Some of fsspec's own methods (`glob`, `rm`, `mv`, `copy`, `expand_path`) take what they are given for a pattern.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import fsspec


def open_url(url: str) -> tuple[Any, str]:
    """The file system of a URL, or of a path, which has no protocol, and the path in it."""
    if "://" not in url:  # fsspec would take :: for several URLs
        return fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(url))
    protocol = url.partition("://")[0]
    if "::" in protocol or any("://" in part for part in url.split("::")[1:]):  # file systems, one in another
        files, root = fsspec.core.url_to_fs(url)
        return files, root
    kind = fsspec.get_filesystem_class(protocol)
    return kind(**kind._get_kwargs_from_urls(url)), kind._strip_protocol(url)  # as url_to_fs, which splits at any ::


def is_local(files: Any) -> bool:
    return "file" in files.protocol


def names_in(files: Any, folder: str) -> list[str]:
    """Names of all that is in a folder, sorted; none if there is no such folder. Never out of a cache."""
    files.invalidate_cache()
    if not files.isdir(folder):
        return []
    return sorted(base(path) for path in files.ls(folder, detail=False))


def remove(files: Any, path: str) -> None:
    """Remove a file, or a folder with all that is in it."""
    if is_local(files):  # takes names as they are
        files.rm(path, recursive=True)
        return
    found = files.find(path, withdirs=True, detail=True)
    folders = [name for name, about in found.items() if about["type"] == "directory"]
    for name in found.keys() - set(folders):
        files.rm_file(name)
    for folder in sorted({*folders, path}, key=len, reverse=True):
        with suppress(OSError, NotImplementedError):  # where folders are but parts of names, they are gone
            files.rmdir(folder)


def base(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
