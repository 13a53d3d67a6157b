"""Errors of the message layer."""

from __future__ import annotations


class ImageDecodeError(ValueError):
    """An image message that cannot be read.

    Attributes:
        encoding: the encoding or format that the message announces; of an image file its name.
        problem: what is wrong, with the value.
        remedy: what to do about it.
    """

    def __init__(self, encoding: str, problem: str, remedy: str, *, file: bool = False):
        subject = encoding if file else f"image with encoding {encoding!r}"
        super().__init__(f"{subject}: {problem}; {remedy}" if subject else f"{problem}; {remedy}")
        self.encoding = encoding
        self.problem = problem
        self.remedy = remedy
