"""Clips among the listed input files: videos and animated images, and their facts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from fer_pipeline.data.decoder_process import Crash, DecoderProcess
from fer_pipeline.errors import InputError, UnreadableFileError
from fer_pipeline.extras import require_package
from fer_pipeline.faces.clip_types import ClipFacts
from fer_pipeline.faces.clips import (
    ANIMATION_SUFFIXES,
    VIDEO_SUFFIXES,
    is_animation,
    read_clip_facts,
)
from fer_pipeline.io.input_reading import describe_read_error, open_input
from fer_pipeline.spark.listed_files import TASKS_PER_CORE
from fer_pipeline.text import one_line

log = logging.getLogger(__name__)

_MEMBER = "is a member of an archive; unpack it to read its frames"


class Clip(NamedTuple):
    """A clip among the input files.

    Attributes:
        name: Name of the file, see `input_listing.FILE_SCHEMA`.
        size: Size of the file, in bytes; -1 if unknown.
        facts: Facts of the clip; None if it cannot be read.
        problem: Why the clip cannot be read; None if nothing is known against it.
    """

    name: str
    size: int
    facts: ClipFacts | None
    problem: str | None


_Facts = ClipFacts | str | None
"""Facts of a clip; the reason why it cannot be read; or None for what is no clip."""


@dataclass(frozen=True)
class _FactsReader:
    """A function that reads the facts of a file; it runs in a decoder process.

    Attributes:
        max_pixels: Largest number of pixels of a frame.
    """

    max_pixels: int

    def __call__(self, name: str) -> _Facts:
        """Return the facts of a file."""
        is_video = _has_suffix(name, VIDEO_SUFFIXES)
        try:
            with open_clip(name) as file:
                if is_video or is_animation(file, self.max_pixels):
                    return read_clip_facts(file, self.max_pixels)
        except UnreadableFileError as error:
            # What is no readable animation remains an image, and is reported as such.
            return str(error) if is_video else None
        return None


class ClipFinder:
    """Finds the clips among the listed files, so that they are not read as images.

    Attributes:
        clips: The clips that were found, in the order of the files.
    """

    def __init__(self, spark: SparkSession, max_pixels: int, *, is_enabled: bool) -> None:
        """Create a finder.

        Args:
            spark: The session.
            max_pixels: Largest number of pixels of a frame.
            is_enabled: Whether the clips are read. Otherwise videos are counted in the log, and
                animated images are images.
        """
        self.clips: list[Clip] = []
        self._spark = spark
        self._max_pixels = max_pixels
        self._is_enabled = is_enabled

    def set_aside(self, files: pa.Table) -> pa.Array:
        """Return for each listed file whether it is a clip; this is a `listed_files.SetAside`.

        Args:
            files: The files, with the columns `input_listing.FILE_SCHEMA`.

        Raises:
            InputError: There are only videos, and they are not to be read.
            MissingPackageError: There are videos, and PyAV is not installed.
        """
        is_video = _match_suffix(files, VIDEO_SUFFIXES)
        video_count = pc.sum(is_video).as_py() or 0
        if not self._is_enabled:
            self._report_videos(video_count, len(files))
            return is_video
        if video_count:
            require_package("av")
        is_animation = pc.and_(
            _match_suffix(files, ANIMATION_SUFFIXES),
            pc.and_(files["archive"].is_null(), files["problem"].is_null()),
        )
        candidates = files.filter(pc.or_(is_video, is_animation)).to_pylist()
        readable = [row["name"] for row in candidates if not (row["problem"] or row["archive"])]
        facts = dict(zip(readable, self._read_facts(readable), strict=True))
        for row in candidates:
            facts_or_problem = row["problem"] or (_MEMBER if row["archive"] else facts[row["name"]])
            if isinstance(facts_or_problem, ClipFacts):
                self.clips.append(Clip(row["name"], row["size"], facts_or_problem, None))
            elif facts_or_problem is not None:
                self.clips.append(Clip(row["name"], row["size"], None, facts_or_problem))
        names = pa.array([clip.name for clip in self.clips], pa.string())
        return pc.is_in(files["name"].combine_chunks(), names)

    @staticmethod
    def _report_videos(video_count: int, file_count: int) -> None:
        """Log how many videos are not read.

        Raises:
            InputError: There are only videos.
        """
        advice = "name a time between their frames with --every SECONDS"
        noun = "video" if video_count == 1 else "videos"
        if video_count and video_count == file_count:
            raise InputError(f"the input holds no image, only {video_count} {noun}; {advice}")
        if video_count:
            log.warning("not read: %d %s; %s", video_count, noun, advice)

    def _read_facts(self, names: Sequence[str]) -> list[_Facts]:
        """Read the facts of files in Spark tasks."""
        if not names:
            return []
        read = functools.partial(_read_all_facts, max_pixels=self._max_pixels)
        context = self._spark.sparkContext
        task_count = min(len(names), TASKS_PER_CORE * context.defaultParallelism)
        return context.parallelize(names, task_count).mapPartitions(read).collect()


def _read_all_facts(names: Iterable[str], max_pixels: int) -> Iterator[_Facts]:
    """Yield the facts of the files of a task, which are read in a decoder process."""
    for facts in _get_facts_decoder(_FactsReader(max_pixels)).map(list(names)):
        yield str(facts) if isinstance(facts, Crash) else facts


@functools.cache
def _get_facts_decoder(read: _FactsReader) -> DecoderProcess[str, _Facts]:
    """Return the decoder process of this Spark worker."""
    return DecoderProcess(read)


def open_clip(name: str) -> BinaryIO:
    """Open the file of a clip.

    Raises:
        UnreadableFileError: It cannot be opened.
    """
    try:
        return open_input(name)
    except Exception as error:  # each filesystem has its own classes
        raise UnreadableFileError(one_line(describe_read_error(error))) from error


def _has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    """Return whether the name of a file ends in one of some suffixes."""
    return name.lower().endswith(tuple(suffixes))


def _match_suffix(files: pa.Table, suffixes: Sequence[str]) -> pa.Array:
    """Return for each file whether its name ends in one of some suffixes."""
    endings = "|".join(suffix.removeprefix(".") for suffix in suffixes)
    return pc.match_substring_regex(files["name"].combine_chunks(), rf"(?i)\.({endings})$")
