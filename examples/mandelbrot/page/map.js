// Shows the map: drag to move it, turn the wheel to zoom. Tiles are fetched when they come into
// sight. Fetches of those that are out of sight again are aborted; the server then withdraws them.

"use strict";

const SIDE = 256; // of a tile, in pixels
const MAX_ZOOM = 40;
const KEPT = 500; // tiles
const RETRY_AFTER = 2000; // milliseconds

const canvas = document.getElementById("map");
const context = canvas.getContext("2d");
// The middle of what is seen, where the map reaches from 0 to 1; its side is SIDE * 2 ** zoom pixels.
const view = { x: 0.5, y: 0.5, zoom: 0 };
const tiles = new Map(); // by "zoom/x/y", those seen last at the end
let drawing = false;
let held; // the last event of a pointer that drags

function draw() {
  drawing = false;
  const level = Math.min(Math.max(Math.round(view.zoom), 0), MAX_ZOOM);
  const wanted = tilesInSight(level);
  for (const [key, tile] of tiles) {
    if (!tile.image && !tile.failed && !wanted.has(key)) {
      tile.fetching.abort();
      tiles.delete(key);
    }
  }
  for (const [key, tile] of wanted) {
    const known = tiles.get(key) ?? fetchTile(key, tile);
    tiles.delete(key);
    tiles.set(key, known);
  }
  for (const [key, tile] of tiles) {
    if (tiles.size <= KEPT) break;
    tile.image?.close();
    tiles.delete(key);
  }
  context.clearRect(0, 0, canvas.width, canvas.height);
  // Where a tile is still to come, coarser ones and, on top of them, finer ones are seen meanwhile.
  const order = ({ zoom }) => (zoom === level ? 0 : zoom > level ? level - zoom : zoom - 1000);
  const loaded = [...tiles.values()].filter((tile) => tile.image);
  for (const tile of loaded.sort((a, b) => order(a) - order(b))) drawTile(tile);
  showView();
}

function drawTile(tile) {
  const scale = SIDE * 2 ** (view.zoom - tile.zoom);
  const edge = (number, middle, length) =>
    Math.round((number - middle * 2 ** tile.zoom) * scale + length / 2);
  const left = edge(tile.x, view.x, canvas.width);
  const right = edge(tile.x + 1, view.x, canvas.width);
  const top = edge(tile.y, view.y, canvas.height);
  const bottom = edge(tile.y + 1, view.y, canvas.height);
  if (right > 0 && bottom > 0 && left < canvas.width && top < canvas.height) {
    context.drawImage(tile.image, left, top, right - left, bottom - top);
  }
}

// The nearest to the middle come first.
function tilesInSight(level) {
  const count = 2 ** level;
  const scale = SIDE * 2 ** (view.zoom - level);
  const range = (middle, length) => [
    Math.max(Math.floor(middle * count - length / 2 / scale), 0),
    Math.min(Math.ceil(middle * count + length / 2 / scale), count),
  ];
  const [left, right] = range(view.x, canvas.width);
  const [top, bottom] = range(view.y, canvas.height);
  const found = [];
  for (let x = left; x < right; x++) {
    for (let y = top; y < bottom; y++) {
      const distance = Math.hypot(x + 0.5 - view.x * count, y + 0.5 - view.y * count);
      found.push([`${level}/${x}/${y}`, { zoom: level, x, y, distance }]);
    }
  }
  return new Map(found.sort(([, a], [, b]) => a.distance - b.distance));
}

function fetchTile(key, tile) {
  tile.fetching = new AbortController();
  fetch(`tiles/${key}.png`, { signal: tile.fetching.signal })
    .then((response) => response.blob())
    .then(createImageBitmap)
    .then((image) => {
      tile.image = image;
    })
    .catch(() => {
      if (tile.fetching.signal.aborted) return;
      tile.failed = true;
      setTimeout(() => {
        tiles.delete(key);
        drawSoon();
      }, RETRY_AFTER);
    })
    .finally(drawSoon);
  return tile;
}

function drawSoon() {
  if (!drawing) requestAnimationFrame(draw);
  drawing = true;
}

function showView() {
  const coming = [...tiles.values()].filter((tile) => !tile.image).length;
  const text = `zoom ${view.zoom.toFixed(1)}, ${coming} tiles to come`;
  document.getElementById("view").textContent = text;
}

async function showServer() {
  if (document.hidden) return;
  let text = "the server does not answer";
  try {
    const now = await (await fetch("statistics")).json();
    text =
      `${now.workers} workers: ${now.completed} tiles rendered, ` +
      `${now.queued} queued, ${now.cancelled} cancelled`;
  } catch {}
  document.getElementById("server").textContent = text;
}

function moveBy(x, y) {
  const side = SIDE * 2 ** view.zoom;
  view.x = Math.min(Math.max(view.x + x / side, 0), 1);
  view.y = Math.min(Math.max(view.y + y / side, 0), 1);
  drawSoon();
}

function resize() {
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  drawSoon();
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  held = event;
});
canvas.addEventListener("pointermove", (event) => {
  if (!canvas.hasPointerCapture(event.pointerId)) return;
  const [x, y] = [held.clientX - event.clientX, held.clientY - event.clientY];
  moveBy(x * devicePixelRatio, y * devicePixelRatio);
  held = event;
});
canvas.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const zoom = view.zoom - (event.deltaY * lines) / 250;
    // What is below the pointer stays there.
    const x = event.offsetX * devicePixelRatio - canvas.width / 2;
    const y = event.offsetY * devicePixelRatio - canvas.height / 2;
    moveBy(x, y);
    view.zoom = Math.min(Math.max(zoom, 0), MAX_ZOOM + 1);
    moveBy(-x, -y);
  },
  { passive: false },
);
addEventListener("resize", resize);

resize();
view.zoom = Math.log2(Math.min(canvas.width, canvas.height) / 0.35 / SIDE);
showServer();
setInterval(showServer, 1000);
