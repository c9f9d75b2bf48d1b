"""Tiles of a map of the Mandelbrot set, rendered with NumPy, which lets go of the GIL meanwhile.

The map at zoom 0 is one tile, a square of side 8 around -0.75. Each zoom has twice as many tiles a
side as the one before; they are counted from the top left.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 256  # pixels
MAX_ZOOM = 40  # A pixel is 64 times as wide as the distance of neighbouring floats there.
WEST, NORTH, WIDTH = -4.75, 4.0, 8.0

# Colours along the logarithm of how long a point takes to escape; they repeat.
STOPS = (0.0, 0.16, 0.42, 0.6425, 0.8575, 1.0)
COLOURS = ((0, 7, 100), (32, 107, 203), (237, 255, 255), (255, 170, 0), (0, 2, 0), (0, 7, 100))
SHADES = np.linspace(0, 1, 1024, endpoint=False)
PALETTE = np.stack(
    [np.interp(SHADES, STOPS, channel) for channel in np.transpose(COLOURS)], axis=-1
)


def render_png(zoom: int, x: int, y: int) -> bytes:
    """Return a tile as PNG."""
    file = BytesIO()
    Image.fromarray(paint(escape_times(points(zoom, x, y), 200 + 50 * zoom))).save(file, "PNG")
    return file.getvalue()


def points(zoom: int, x: int, y: int) -> NDArray[np.complex128]:
    """The numbers in the middle of a tile's pixels."""
    pixel = WIDTH / (SIDE << zoom)
    offsets = np.arange(SIDE) + 0.5
    real = WEST + (x * SIDE + offsets) * pixel
    imaginary = NORTH - (y * SIDE + offsets) * pixel
    return real + 1j * imaginary[:, np.newaxis]


def escape_times(points: NDArray[np.complex128], limit: int) -> NDArray[np.float64]:
    """How many steps of z = z² + c it takes each point to escape, smoothed; 0 if it does not."""
    times = np.zeros(points.size)
    where = np.flatnonzero(~in_largest_parts(points))
    c = points.ravel()[where]
    z = c.copy()
    for step in range(1, limit):
        size = z.real**2 + z.imag**2
        escaped = size > 1 << 16
        if escaped.any():
            times[where[escaped]] = step + 4 - np.log2(np.log2(size[escaped]))
            stays = ~escaped
            where, c, z = where[stays], c[stays], z[stays]
        z *= z
        z += c
    return times.reshape(points.shape)


def in_largest_parts(points: NDArray[np.complex128]) -> NDArray[np.bool_]:
    """Which points are in the heart or the disc left of it, and need not be iterated."""
    x, y = points.real - 0.25, points.imag
    q = x**2 + y**2
    in_heart = q * (q + x) < y**2 / 4
    in_disc = (x + 1.25) ** 2 + y**2 < 1 / 16
    return np.asarray(in_heart | in_disc)


def paint(times: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Turn escape times into colours; what does not escape is black."""
    # The corners of the map escape after 2.6 steps: there the colours begin, with dark blue.
    shades = np.log2(np.maximum(times, 2.5) / 2.5) * len(PALETTE) / 4
    colours = PALETTE[shades.astype(np.intp) % len(PALETTE)]
    colours[times == 0] = 0
    return colours.astype(np.uint8)
