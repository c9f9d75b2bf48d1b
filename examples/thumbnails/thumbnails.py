"""Make a thumbnail of every image below a folder, on a dromon pool, with a progress bar.

    python thumbnails.py [--size PIXELS] [--workers N] SOURCE TARGET

The thumbnail of ``SOURCE/a/b.jpg`` is ``TARGET/a/b.jpg.webp``. One that is newer than its image is
left alone, so that an interrupted run can be taken up again. What cannot be read is reported at the
end on stderr, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio
from PIL import Image, ImageOps

import dromon

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager


def main() -> int:
    parser = argparse.ArgumentParser(description="Make thumbnails of the images below a folder.")
    parser.add_argument("source", metavar="SOURCE", type=Path)
    parser.add_argument("target", metavar="TARGET", type=Path, help="made if it is not there")
    parser.add_argument(
        "--size", metavar="PIXELS", type=int, default=256, help="of the longer side"
    )
    parser.add_argument("--workers", metavar="N", type=int, help="default: one per usable CPU")
    args = parser.parse_args()
    if not 1 <= args.size <= 4096:
        parser.error("argument --size: must be from 1 to 4096")
    try:
        opening = dromon.open_pool(args.workers)
    except ValueError as error:
        parser.error(f"argument --workers: {error}")
    # Images of more pixels than Pillow finds reasonable are errors like others.
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    # Here it is as it should be that all workers are busy while files wait for them.
    logging.getLogger("dromon").addFilter(lambda record: "saturated" not in record.msg)
    status = 130
    try:
        status = trio.run(make_thumbnails, args.source, args.target, args.size, opening)
    except* KeyboardInterrupt:
        pass
    return status


@attrs.frozen
class Made:
    """What has become of one file or folder."""

    name: Path
    anew: bool = False
    problem: str | None = None


async def make_thumbnails(
    source: Path, target: Path, size: int, opening: AbstractAsyncContextManager[dromon.Pool]
) -> int:
    async with opening as pool:
        # Reading the folders may take long, too: also that is done on a worker.
        images, made = await pool.run_sync(find_images, source, target)
        # So few are under way that an image which takes long does not let thousands pile up behind
        # it, and so many that a worker which is done finds its next one waiting.
        async with pool.open_map(
            partial(make_thumbnail, source, target, size),
            images,
            max_in_flight=4 * len(pool.statistics().workers),
            ordered=False,
            progress=True,
        ) as results:
            async for result in results:
                made.append(result)
    problems = sorted(f"{each.name}: {each.problem}" for each in made if each.problem is not None)
    anew = sum(each.anew for each in made)
    current = len(made) - anew - len(problems)
    print(f"{anew} made, {current} left alone, {len(problems)} failed")
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


def find_images(source: Path, target: Path) -> tuple[list[Path], list[Made]]:
    """Return the names of what may be images, seen from `source`, and what cannot be looked at."""
    Image.init()
    suffixes = Image.registered_extensions().keys()
    images, problems = [], []

    def note(error: OSError) -> None:
        problems.append(Made(Path(error.filename), problem=error.strerror))

    for folder, below, files in os.walk(source, onerror=note):
        # The thumbnails may be made somewhere below the images.
        below[:] = sorted(name for name in below if not is_same(Path(folder, name), target))
        paths = (Path(folder, name) for name in sorted(files))
        images += [path.relative_to(source) for path in paths if path.suffix.lower() in suffixes]
    return images, problems


def is_same(folder: Path, other: Path) -> bool:
    return other.exists() and folder.samefile(other)


def make_thumbnail(source: Path, target: Path, size: int, name: Path) -> Made:
    """Make one thumbnail, on a worker. Decoding, scaling and encoding let go of the GIL."""
    image = source / name
    thumbnail = target / name.with_name(f"{name.name}.webp")
    try:
        if thumbnail.exists() and thumbnail.stat().st_mtime > image.stat().st_mtime:
            return Made(name)
        thumbnail.parent.mkdir(parents=True, exist_ok=True)
        write(scale(image, size), thumbnail)
    except OSError as error:
        return Made(name, problem=error.strerror or str(error))
    except (
        Exception
    ) as error:  # Pillow's decoders raise all sorts of them for files that are broken.
        return Made(name, problem=f"{type(error).__name__}: {error}")
    return Made(name, anew=True)


def scale(path: Path, size: int) -> Image.Image:
    with Image.open(path) as file:
        # A palette has no colours between those of neighbouring pixels.
        image = file.convert("RGBA") if file.mode == "P" else file
        image.thumbnail((size, size))
        ImageOps.exif_transpose(image, in_place=True)
        return image.copy()


def write(image: Image.Image, path: Path) -> None:
    """Write a file that is there only when it is complete."""
    part = path.with_name(f"{path.name}.part")
    try:
        image.save(part, "WEBP")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
