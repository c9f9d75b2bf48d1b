"""examples/thumbnails, run as a user runs it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from programs import EXAMPLES, run_program

if TYPE_CHECKING:
    from pathlib import Path

THUMBNAILS = EXAMPLES / "thumbnails" / "thumbnails.py"

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five images in two folders, of several kinds, and a file that is none."""
    source = tmp_path / "source"
    below = source / "below"
    below.mkdir(parents=True)
    Image.new("RGB", (400, 300), RED).save(source / "wide.jpg")
    Image.new("RGB", (300, 400), BLUE).save(source / "high.PNG")
    Image.new("RGB", (10, 10), RED).save(below / "small.bmp")
    Image.new("P", (400, 400), 0).save(below / "palette.gif")
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (400, 300), RED).save(below / "turned.jpg", exif=turned)
    (below / "notes.txt").write_text("no image")
    return source


def thumbnails_in(folder: Path) -> dict[str, tuple[int, int]]:
    """The names and the sizes of the thumbnails, and of whatever else is there."""
    sizes = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with Image.open(path) as image:
            assert image.format == "WEBP"
            sizes[str(path.relative_to(folder))] = image.size
    return sizes


def test_every_image_gets_a_thumbnail_in_a_tree_like_its_own(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "new" / "target"
    result = run_program(THUMBNAILS, "--size", "100", source, target)
    assert (result.stdout, result.stderr) == ("5 made, 0 left alone, 0 failed\n", "")
    assert thumbnails_in(target) == {
        "below/palette.gif.webp": (100, 100),
        "below/small.bmp.webp": (10, 10),
        "below/turned.jpg.webp": (75, 100),
        "high.PNG.webp": (75, 100),
        "wide.jpg.webp": (100, 75),
    }
    with Image.open(target / "high.PNG.webp") as image:
        red, green, blue = image.convert("RGB").getpixel((50, 50))
        assert max(red, green) < 10 < 245 < blue


def test_thumbnails_that_are_newer_than_their_images_are_left_alone(
    tmp_path: Path, source: Path
) -> None:
    run_program(THUMBNAILS, source, tmp_path / "target")
    changed = source / "wide.jpg"
    later = (tmp_path / "target" / "wide.jpg.webp").stat().st_mtime + 1
    os.utime(changed, (later, later))
    Image.new("RGB", (20, 20)).save(source / "added.png")
    result = run_program(THUMBNAILS, source, tmp_path / "target")
    assert result.stdout == "2 made, 4 left alone, 0 failed\n"


def test_thumbnails_below_their_images_get_no_thumbnails(source: Path) -> None:
    for made, left_alone in ((5, 0), (0, 5)):
        result = run_program(THUMBNAILS, source, source / "thumbnails")
        assert result.stdout == f"{made} made, {left_alone} left alone, 0 failed\n"


def test_what_fails_is_reported_at_the_end_and_leaves_nothing_behind(
    tmp_path: Path, source: Path
) -> None:
    (source / "broken.png").write_bytes(b"no image")
    whole = (source / "wide.jpg").read_bytes()
    (source / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (source / "gone.jpg").symlink_to("missing")
    result = run_program(THUMBNAILS, source, tmp_path / "target", status=1)
    assert result.stdout == "5 made, 0 left alone, 3 failed\n"
    broken, cut, gone = result.stderr.splitlines()
    assert broken.startswith("broken.png: cannot identify image file")
    assert cut.startswith("cut.jpg: ")
    assert gone == "gone.jpg: No such file or directory"
    assert len(thumbnails_in(tmp_path / "target")) == 5


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    result = run_program(THUMBNAILS, tmp_path / "missing", tmp_path / "target", status=1)
    assert result.stdout == "0 made, 0 left alone, 1 failed\n"
    assert result.stderr == f"{tmp_path / 'missing'}: No such file or directory\n"


def test_a_terminal_shows_how_far_it_is(tmp_path: Path, source: Path) -> None:
    terminal, side_of_program = pty.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        with subprocess.Popen(
            [sys.executable, THUMBNAILS, source, tmp_path / "target"],
            stdout=subprocess.PIPE,
            stderr=side_of_program,
            env={**os.environ, "TERM": "xterm"},
        ) as process:
            os.close(side_of_program)
            shown = b""
            # At the end Linux raises EIO.
            try:
                while part := screen.read(1000):
                    shown += part
            except OSError:
                pass
            assert process.communicate(timeout=60)[0] == b"5 made, 0 left alone, 0 failed\n"
        assert b"5/5" in shown


def test_it_ends_quietly_when_interrupted(tmp_path: Path, source: Path) -> None:
    pipe = source / "pipe.png"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [sys.executable, THUMBNAILS, source, tmp_path / "target"], stderr=subprocess.PIPE
    ) as process:
        # Opening it waits until the program has opened it for reading, on a worker.
        with pipe.open("wb"):
            process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, b"")
    thumbnails_in(tmp_path / "target")


@pytest.mark.parametrize("option", ["--size", "--workers"])
def test_it_refuses_numbers_that_make_no_sense(tmp_path: Path, option: str) -> None:
    result = run_program(THUMBNAILS, option, "0", tmp_path, tmp_path, status=2)
    assert f"error: argument {option}: " in result.stderr
