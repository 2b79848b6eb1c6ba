"""Reads command lines with tyro, and says in a sentence what is wrong with one."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from cluster.errors import ConfigError

# tyro passes on Python's error messages: patterns of these, and plain words for each.
PLAIN_WORDS = (
    (r"^Error parsing (\S+): ", r"\1: "),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", r"\2: '\1' is not one of \3"),
    (r"Missing value for argument '(.*)'.*", r"\1: a value is missing"),
    (r"^Unrecognized options: ", "unknown option: "),
)


def said(words: Sequence[str], option: str) -> str:
    """Return the value that the words give to an option, or ""."""
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:
            return value if equals else following
    return ""


def parsed(command: Callable[..., int], arguments: list[str], program: str) -> int:
    """Call a command with the arguments of the command line. The annotations of its parameters define its options."""
    result: int = parse(command, arguments, program)
    return result


def parse(what: Any, arguments: list[str], program: str, default: Any = None) -> Any:
    """Call tyro.cli. Raises ConfigError with one sentence made from tyro's boxed error message."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            if default is None:
                return tyro.cli(what, args=arguments, prog=program)
            return tyro.cli(what, args=arguments, prog=program, default=default)
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise ConfigError(f"{sentence(complaint.getvalue())}; see `{program} --help`") from None


def sentence(complaint: str) -> str:
    """Return the text below the title of tyro's box, and the first option that the box suggests."""
    paragraphs: list[list[str]] = [[]]
    for line in complaint.splitlines():
        text = line.strip(" │")
        if not text.strip("-─╭╮╰╯") or text.startswith("╭"):  # a horizontal line, or the frame with the title in it
            paragraphs.append([])
        else:
            paragraphs[-1].append(text)
    body, *others = [" ".join(lines) for lines in paragraphs[1:] if lines] or [complaint.strip()]
    for pattern, plain in PLAIN_WORDS:
        body = re.sub(pattern, plain, body)
    hint = next((text.split() for text in others if text.startswith("Perhaps you meant")), [])
    suggestion = f", did you mean {hint[3]}?" if len(hint) > 3 else ""
    return body.rstrip(".") + suggestion
