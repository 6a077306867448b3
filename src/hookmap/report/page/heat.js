// A map over its picture, drawn as hookmap's own overlays are: a cubic kernel over the rectangle that the grid spans.

const palettes = Object.fromEntries(Object.entries(data.palettes).map(([name, base64]) => [name, bytes(base64)]));
const strongest = 0.85;
const fade = 1.2;

function cubic(distance) {
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  return distance < 2 ? ((-0.5 * distance + 2.5) * distance - 4) * distance + 2 : 0;
}

/** Of each pixel along a side: four cells, their weights, and whether the model saw it. */
function taps(pixels, original, low, high, cells) {
  const found = [];
  for (let i = 0; i < pixels; i++) {
    const share = (((i + 0.5) * original) / pixels - low) / (high - low);
    const at = Math.min(Math.max(share * cells - 0.5, 0), cells - 1);
    const first = Math.floor(at) - 1;
    const near = [0, 1, 2, 3].map((k) => Math.min(Math.max(first + k, 0), cells - 1));
    found.push({
      seen: share >= 0 && share <= 1,
      cells: near,
      weights: [0, 1, 2, 3].map((k) => cubic(Math.abs(at - first - k))),
    });
  }
  return found;
}

/** A grid on the pixels of a picture: values (NaN where the model didn't look) in the grid's own range. */
function laidBack(grid, [rows, columns], [width, height], original, span) {
  const across = taps(width, original[0], span[0], span[2], columns);
  const down = taps(height, original[1], span[1], span[3], rows);
  const wide = new Float32Array(rows * width);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < width; x++) {
      const { cells, weights } = across[x];
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += weights[k] * grid[y * columns + cells[k]];
      wide[y * width + x] = sum;
    }
  }
  let least = 0;
  let most = 0;
  for (const value of grid) [least, most] = [Math.min(least, value), Math.max(most, value)];
  const values = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const { cells, weights, seen } = down[y];
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += weights[k] * wide[cells[k] * width + x];
      values[y * width + x] = seen && across[x].seen ? Math.min(Math.max(sum, least), most) : NaN;
    }
  }
  return values;
}

/** Values to 0..1, as hookmap.render.colors.normalize: "max" (or a limit), "minmax" or "symmetric". */
function normalized(values, { scale = "max", limit }) {
  let [low, high] = [0, 0];
  if (scale === "minmax") {
    [low, high] = [Infinity, -Infinity];
    for (const value of values) if (value === value) [low, high] = [Math.min(low, value), Math.max(high, value)];
  } else {
    for (const value of values) high = Math.max(high, (scale === "symmetric" ? Math.abs(value) : value) || 0);
    high = limit ?? high;
    low = scale === "symmetric" ? -high : 0;
  }
  const none = scale === "symmetric" ? 0.5 : 0;
  return values.map((value) =>
    high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : value === value ? none : NaN,
  );
}

/** Colours and opacity on a canvas of the size of the values. */
function paint(canvas, values, look, opaque = false) {
  const symmetric = look.scale === "symmetric";
  const palette = palettes[symmetric ? "symmetric" : "max"];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  const shown = normalized(values, look);
  for (let i = 0; i < shown.length; i++) {
    const value = shown[i];
    if (value !== value) {
      pixels.data.set(opaque ? [0, 0, 0, 0] : [89, 89, 89, 128], 4 * i); // unseen: dimmed
      continue;
    }
    const color = 3 * Math.min(255, Math.floor(value * 256));
    const strength = symmetric ? Math.abs(2 * value - 1) : value;
    pixels.data[4 * i] = palette[color];
    pixels.data[4 * i + 1] = palette[color + 1];
    pixels.data[4 * i + 2] = palette[color + 2];
    pixels.data[4 * i + 3] = opaque ? 255 : Math.round(255 * strongest * strength ** fade);
  }
  context.putImageData(pixels, 0, 0);
}

const lookOf = (row) => data.looks[data.lookOf[row]] ?? {};

/** The map of a row as numbers, or null. */
async function mapOf(row) {
  if (data.gridOf[row] < 0) return null;
  const coded = bytes(await piles.maps.get(row));
  const signed = table.part[row] === "signed";
  return Float32Array.from(coded, signed ? (value) => (value - 128) / 127 : (value) => value / 255);
}

/** Draw the map of a row onto a canvas over its picture. */
async function drawRow(canvas, row, longer) {
  const original = [table.width[row], table.height[row]];
  const scale = longer / Math.max(...original);
  canvas.width = Math.max(1, Math.round(original[0] * scale));
  canvas.height = Math.max(1, Math.round(original[1] * scale));
  const grid = await mapOf(row);
  if (!grid) return;
  const span = ["grid_left", "grid_top", "grid_right", "grid_bottom"].map((name) => table[name][row]);
  const values = laidBack(grid, data.grids[data.gridOf[row]], [canvas.width, canvas.height], original, span);
  paint(canvas, values, { ...lookOf(row), limit: data.limits[row] });
}

/** Draw a square map of shares over the frame. */
function drawFrame(canvas, coded, most = 255) {
  const grid = Float32Array.from(bytes(coded), (value) => value / most);
  const side = Math.round(Math.sqrt(grid.length));
  canvas.width = canvas.height = 4 * side;
  const values = laidBack(grid, [side, side], [canvas.width, canvas.height], [1, 1], [0, 0, 1, 1]);
  paint(canvas, values, {}, true);
}

/** What the colours mean. */
function legend() {
  const signed = explained.every((row) => lookOf(row).scale === "symmetric");
  const canvas = element("canvas", { class: "ramp", "aria-hidden": "true", width: 256, height: 1 });
  const ends = signed ? ["against", "for the target"] : ["weak", "strong"];
  paint(
    canvas,
    Float32Array.from({ length: 256 }, (_, i) => (signed ? i / 127.5 - 1 : i / 255)),
    signed ? { scale: "symmetric" } : {},
    true,
  );
  return element(
    "div",
    { class: "legend" },
    canvas,
    element("div", { class: "ends" }, ...ends.map((end) => element("span", {}, end))),
  );
}
