"""Frames out of videos, image folders and frames.csv sequences."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_densematch.io.sources.opening import open_source
from ros2_densematch.io.sources.options import SourceOptions


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((24, 32, 3), (10, 20, 100 + i), np.uint8))


def write_video(path: Path, count: int = 10) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5.0, (64, 48))
    for i in range(count):
        writer.write(np.full((48, 64, 3), (0, 0, 20 * i), np.uint8))
    writer.release()


# --- sequences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "frames", "shape"), [("hololens", 373, (360, 540, 3)), ("kitti_a", 51, (370, 1226))])
def test_the_recorded_sequences(shared_data, name: str, frames: int, shape: tuple[int, ...]) -> None:
    source = open_source(shared_data.need(f"sequences/{name}"))
    assert source.length == frames
    assert source.ground_truth is not None
    assert source.ground_truth.T_world_from_camera.shape == (frames, 4, 4)
    for frame, _ in zip(source, range(5), strict=False):
        assert frame.image.shape == shape
        assert frame.camera is not None
        assert (frame.depth is not None) == (name == "hololens" and frame.index % 4 == 0)
    assert not source.warnings


def test_depth_files_are_in_metres(shared_data) -> None:
    frame = next(iter(open_source(shared_data.need("sequences/tum_fr1_rpy"))))
    assert frame.depth is not None
    known = frame.depth[np.isfinite(frame.depth)]
    assert 0.3 < np.median(known) < 5.0
    assert known.min() > 0


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    write_images(tmp_path, [f"{i}.png" for i in range(4)])
    rows = [f"{i},{i * 10**8},{i}.png,,0,0,{i},0,0,0,1" for i in range(4)]
    (tmp_path / "frames.csv").write_text(
        "index,timestamp_ns,image,depth,tx,ty,tz,qx,qy,qz,qw\n" + "\n".join(rows) + "\n"
    )
    (tmp_path / "camera.json").write_text(json.dumps({"width": 32, "height": 24, "K": [30, 0, 16, 0, 30, 12, 0, 0, 1]}))
    return tmp_path


def test_a_missing_image_is_dropped_and_the_rest_is_read(sequence: Path) -> None:
    (sequence / "2.png").unlink()
    source = open_source(sequence)
    assert [f.index for f in source] == [0, 1, 3]
    assert source.dropped == 1
    assert "frame 2" in source.warnings[0]


def test_a_damaged_line_is_left_out_and_counted(sequence: Path) -> None:
    with (sequence / "frames.csv").open("a") as stream:
        stream.write("4,not a time,3.png,,,,,,,,\n5,4000000000000000000,3.png,,,,,,,,\n")
    source = open_source(sequence)
    assert sum(1 for _ in source) == 4
    assert any(text.startswith("2 lines of frames.csv") and "line 6" in text for text in source.warnings)


def test_images_outside_the_folder_are_not_read(sequence: Path) -> None:
    with (sequence / "frames.csv").open("a") as stream:
        stream.write("4,900000000,../outside.png,,,,,,,,\n")
    write_images(sequence.parent, ["outside.png"])
    source = open_source(sequence)
    assert sum(1 for _ in source) == 4
    assert any("points outside the folder" in text for text in source.warnings)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not a JSON"),
        ("[]", "must contain an object"),
        ('{"K": [1]}', "width"),
        ('{"width": 1, "height": 2, "K": [1]}', "reshape"),
        ('{"depth_scale": 0}', "depth_scale"),
    ],
)
def test_a_damaged_camera_file_is_an_error_that_names_it(sequence: Path, content: str, problem: str) -> None:
    (sequence / "camera.json").write_text(content)
    with pytest.raises(ValueError, match=rf"camera\.json.*{problem}"):
        open_source(sequence)


def test_a_sequence_without_camera_or_columns(sequence: Path) -> None:
    (sequence / "camera.json").unlink()
    assert any("correspondences only" in text for text in open_source(sequence).warnings)
    (sequence / "frames.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="timestamp_ns or image"):
        open_source(sequence)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_natural_order_at_the_given_rate(tmp_path: Path) -> None:
    write_images(tmp_path, ["f1.png", "f10.png", "f2.png"])
    source = open_source(tmp_path, SourceOptions(rate_hz=20.0))
    assert [f.source for f in source] == ["f1.png", "f2.png", "f10.png"]
    assert [f.stamp_ns for f in source] == [0, 50_000_000, 100_000_000]
    np.testing.assert_array_equal(next(iter(source)).image[0, 0], [100, 20, 10])  # RGB
    assert any("20 images/s" in text for text in source.notes)


@pytest.mark.parametrize(
    ("names", "stamps"),
    [
        (["1403636579763555584.png", "1403636579813555456.png"], [1403636579763555584, 1403636579813555456]),
        (["1305031102.175304.png", "1305031102.211214.png"], [1305031102175304000, 1305031102211214000]),
    ],
)
def test_time_stamps_come_from_file_names(tmp_path: Path, names: list[str], stamps: list[int]) -> None:
    write_images(tmp_path, names)
    assert [f.stamp_ns for f in open_source(tmp_path)] == stamps


def test_a_calibration_file_in_the_folder_is_used(tmp_path: Path) -> None:
    from ros2_densematch.geometry.camera import Camera

    write_images(tmp_path, ["1.png", "2.png"])
    assert next(iter(open_source(tmp_path))).camera is None
    Camera.from_matrix([[30, 0, 16], [0, 30, 12], [0, 0, 1]], 32, 24).to_yaml(tmp_path / "camera.yaml")
    assert next(iter(open_source(tmp_path))).camera is not None


# --- videos -----------------------------------------------------------------------------------------------------------


def test_a_video_gives_rgb_frames_at_its_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi")
    source = open_source(tmp_path / "a.avi")
    frames = list(source)
    assert source.length == 10
    assert [f.stamp_ns for f in frames] == [i * 200_000_000 for i in range(10)]
    assert frames[9].image.shape == (48, 64, 3)
    assert frames[9].image[20, 20, 0] > 150 > frames[9].image[20, 20, 2]
    part = open_source(tmp_path / "a.avi", SourceOptions(start_s=0.4, stop_s=1.0))
    assert [f.stamp_ns for f in part] == [400_000_000, 600_000_000, 800_000_000]


def test_a_cut_video_is_read_up_to_the_cut(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", 40)
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "half.avi").write_bytes(data[: len(data) // 2])
    source = open_source(tmp_path / "half.avi")
    assert 5 <= sum(1 for _ in source) < 40


def test_frames_that_an_edit_list_leaves_out_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for i in range(30):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # its first duration, in milliseconds
    assert int.from_bytes(data[at : at + 4], "big") == 3000
    data[at : at + 4] = (1500).to_bytes(4, "big")
    path.write_bytes(data)
    source = open_source(path)
    assert sum(1 for _ in source) == 15
    assert not any("damaged" in text or "cut" in text for text in source.warnings)
    assert any("edit list" in text and "15 of its 30 frames" in text for text in source.notes)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"a\.mp4 is not a video"):
        open_source(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.mp4 is empty"):
        open_source(tmp_path / "a.mp4")


# --- what is no source ------------------------------------------------------------------------------------------------


def test_what_is_no_source_is_refused_with_what_would_be_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_source(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"not a source of frames.*\.mcap.*\.mp4"):
        open_source(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        open_source(tmp_path / "empty")


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--to 1 must come after --from 2"):
        SourceOptions(start_s=2.0, stop_s=1.0)
    with pytest.raises(ValueError, match="--from must be at least 0"):
        SourceOptions(start_s=-1.0)
    write_images(tmp_path, ["1.png"])
    with pytest.raises(ValueError, match="omit --depth-topic"):
        open_source(tmp_path, SourceOptions(depth_topic="/depth"))


@pytest.mark.parametrize(("metres", "word"), [(4000.0, "4000 m"), (0.004, "0.004 m"), (4.0, ""), (0.0, "")])
def test_depth_in_another_unit_is_doubted_once(metres: float, word: str) -> None:
    from ros2_densematch.io.sources.assemble import FrameAssembler
    from ros2_densematch.io.sources.log import SourceLog

    log = SourceLog()
    assembler = FrameAssembler(SourceOptions(), log, None)
    for i in range(3):
        depth = np.full((24, 32), metres, np.float32)
        assert assembler.frame(np.zeros((24, 32), np.uint8), i + 1, i, "a", depth=depth) is not None
    assert len(log.warnings) == bool(word)
    assert word in "".join(log.warnings)


def test_a_packed_recording_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.mcap.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="is an archive"):
        open_source(tmp_path / "a.mcap.gz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mp4", b"<!DOCTYPE html><html>404</html>", "a web page"),
        ("a.mp4", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("a.mcap", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("a.bag", b"PK\x03\x04" + bytes(99), "a zip archive: unpack it first"),
        ("a.bag", b"\x89MCAP0\r\n" + bytes(99), "name it .mcap"),
        ("a.mcap", b"\x89MCAP0\r\n" + bytes(99), "nothing can be read"),
        ("a.db3", b"", "it is empty"),
        ("a.avi", b"no video", "it is text that begins with 'no video'"),
        ("a.raw", b"\x1f\x8b" + bytes(99), "a gzip file"),
    ],
)
def test_a_file_that_is_not_what_it_is_called_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        open_source(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert ("name it" in str(raised.value)) == (name == "a.bag" and content[0] == 0x89)


def test_the_table_of_a_spreadsheet_is_read_and_other_numbers_are_named(sequence: Path) -> None:
    table = (sequence / "frames.csv").read_bytes()
    lines = table.decode().splitlines()
    columns = [line.split(",")[1:] for line in lines]  # the mark lies before a column that is needed
    (sequence / "frames.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(map(",".join, columns)).encode())
    assert list(open_source(sequence))
    stamps = [f"{1700000000 + 0.1 * i:.6f}" for i in range(len(lines) - 1)]
    rows = [
        lines[0],
        *(",".join([line.split(",")[0], t, *line.split(",")[2:]]) for line, t in zip(lines[1:], stamps, strict=True)),
    ]
    (sequence / "frames.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError, match="is not a whole number of nanoseconds"):
        open_source(sequence)
