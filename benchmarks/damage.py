"""Random damage of sample files: no traceback, hang, death by signal, write beside the input, and little memory.

    python benchmarks/damage.py FOLDER... [--count 10000] [--seed 0] [--jobs 2]

Every sample is cut, or some of its bytes are flipped, inserted, removed or set to zero; then it is read as the commands
read it: bags and videos as sources with all their frames, every second bag by `inspect --full`, pictures, calibrations,
sequences. What is wrong must come out as a warning, or as a ValueError or OSError, which the commands turn into one
line. The reading runs in a process of its own; a native decoder that dies is counted. Exit code 0: all went well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

HANG_S = 20.0
MEMORY_BYTES = 2 << 30
PICTURES = (".jpg", ".png", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".mpg", ".wmv")
SUFFIXES = (".mcap", ".db3", ".bag", ".yaml", ".csv", ".json", *PICTURES, *VIDEOS)
_LARGEST = 4 << 20  # larger samples take too long for thousands of readings


def damaged(data: bytes, seed: int) -> bytes:
    """The bytes of a file after one to three damages that follow from the seed."""
    rng = random.Random(seed)
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not content:
            break
        at = rng.randrange(len(content))
        length = min(len(content) - at, rng.choice((1, 4, 64, 4096)))
        kind = rng.choice(("cut", "flip", "flip", "insert", "remove", "zero"))
        if kind == "cut":
            del content[at:]
        elif kind == "flip":
            for _ in range(rng.choice((1, 2, 16))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif kind == "insert":
            content[at:at] = rng.randbytes(length)
        elif kind == "remove":
            del content[at : at + length]
        else:
            content[at : at + length] = bytes(length)
    return bytes(content)


def read(path: Path, *, inspect: bool) -> int:
    """Reads a file as the commands do; returns how many frames came out."""
    from ros2_densematch.geometry.camera import Camera
    from ros2_densematch.io.sources.files import read_image
    from ros2_densematch.io.sources.inspection import inspect_bag
    from ros2_densematch.io.sources.opening import open_source

    if path.name == "metadata.yaml":
        return sum(1 for _ in open_source(path.parent))
    if path.suffix == ".yaml":
        Camera.from_yaml(path)
        return 0
    if path.suffix in PICTURES:
        read_image(path)
        return 1
    if path.suffix in (".csv", ".json"):
        path = path.parent
    elif path.suffix in (".mcap", ".db3", ".bag") and inspect:
        inspect_bag(path, full=True)
        return 0
    return sum(1 for _ in open_source(path))


def work() -> None:
    """The process that reads: one line in for each file, one line out."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # decoders print what they like
    for line in sys.stdin:
        job = json.loads(line)
        answer: dict[str, Any] = {"result": "read"}
        try:
            read(Path(job["path"]), inspect=job["inspect"])
        except (ValueError, OSError) as error:
            answer = {"result": "refused", "text": str(error)[:300]}
        except Exception:  # noqa: BLE001 - that is what is looked for
            answer = {"result": "traceback", "text": traceback.format_exc(limit=-6)}
        answer["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(answer), file=answers)


class Reader:
    """The reading process, started anew where it hung or died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path, *, inspect: bool) -> dict[str, Any]:
        """The answer for a file; "hang" and "death" are results too."""
        if self._process is None or self._process.poll() is not None:
            environment = {
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "OPENCV_FFMPEG_LOGLEVEL": "-8",
                "OPENCV_LOG_LEVEL": "OFF",
            }
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--work"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
            first = 60.0  # until the libraries are loaded
        else:
            first = 0.0
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"path": str(path), "inspect": inspect}) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], HANG_S + first)
        if not ready:
            process.kill()
            process.wait()
            return {"result": "hang", "text": f"no answer within {HANG_S:.0f} s"}
        line = process.stdout.readline()
        if not line:
            return {"result": "death", "text": f"the process ended with {process.wait()}"}
        return dict(json.loads(line))

    def close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def samples(folders: list[Path]) -> list[Path]:
    """The files to be damaged, in alphabetical order."""
    found = [f for folder in folders for f in ([folder] if folder.is_file() else sorted(folder.rglob("*")))]
    return [f for f in found if f.suffix in SUFFIXES and f.is_file() and 0 < f.stat().st_size <= _LARGEST]


def try_all(files: list[Path], count: int, seed: int, *, only: int = 0, of: int = 1) -> dict[str, Any]:
    """Damages and reads; returns the counts, the worst memory and what went wrong.

    Args:
        files: the samples.
        count: how many damages in all.
        seed: of the first one; each next one has the next seed.
        only, of: this process does every `of`-th one, beginning with `only`.
    """
    contents = {file: file.read_bytes() for file in files}
    reader, results, memory = Reader(), Counter[str](), 0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="densematch-damage-") as name:
        for number in range(only, count, of):
            file = files[number % len(files)]
            folder = Path(name) / "input"
            folder.mkdir()
            if file.suffix in (".csv", ".json") or file.name == "metadata.yaml":
                for other in file.parent.iterdir():  # a sequence or a bag needs its other files
                    (shutil.copytree if other.is_dir() else shutil.copy)(other, folder / other.name)
            path = folder / file.name
            path.write_bytes(damaged(contents[file], seed + number))
            before = listing(Path(name))
            answer = reader.read(path, inspect=number // len(files) % 2 == 1)
            if listing(Path(name)) != before:
                answer = {**answer, "result": "write", "text": f"{listing(Path(name)) ^ before}"}
            results[answer["result"]] += 1
            memory = max(memory, answer.get("memory", 0))
            if answer["result"] not in ("read", "refused"):
                wrong.append(f"{file} with seed {seed + number}: {answer['result']}: {answer['text']}")
            shutil.rmtree(folder)
    reader.close()
    if memory > MEMORY_BYTES:
        wrong.append(f"{memory >> 20} MiB of memory were used, {MEMORY_BYTES >> 20} are allowed")
    return {"results": dict(results), "memory": memory, "wrong": wrong}


def listing(folder: Path) -> frozenset[tuple[str, int]]:
    """Names and sizes below a folder."""
    return frozenset((str(f.relative_to(folder)), f.stat().st_size) for f in folder.rglob("*") if f.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="files, or folders that are searched for samples")
    parser.add_argument("--count", type=int, default=10_000, help="damages")
    parser.add_argument("--seed", type=int, default=0, help="of the first damage")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    files = samples(options.folders)
    if not files:
        parser.error("no sample was found: name files or folders with bags, videos, pictures or calibrations")
    begin = time.perf_counter()
    if options.jobs == 1:
        parts = [try_all(files, options.count, options.seed)]
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(options.jobs) as pool:
            jobs = [
                pool.submit(try_all, files, options.count, options.seed, only=i, of=options.jobs)
                for i in range(options.jobs)
            ]
            parts = [job.result() for job in jobs]
    results = sum((Counter(part["results"]) for part in parts), Counter[str]())
    wrong = [text for part in parts for text in part["wrong"]]
    for text in wrong:
        print(text)
    print(
        f"{results.total()} damages of {len(files)} files in {time.perf_counter() - begin:.0f} s: "
        + ", ".join(f"{number} {name}" for name, number in sorted(results.items()))
        + f"; at most {max(part['memory'] for part in parts) >> 20} MiB of memory"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
