// A map over its picture, drawn as hookmap.render.overlay does, to within 2 of 255 (a test holds it).

const palettes = Object.fromEntries(Object.entries(data.palettes).map(([name, base64]) => [name, bytes(base64)]));
const [strongest, fade, unseen] = [0.85, 1.2, 0.82];
const usual = { colormap: "inferno", opacity: "ramp", scale: "max" };

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

/** A grid on the pixels of a picture: shares (NaN where the model didn't look) in the grid's own range. */
function laidBack(grid, [rows, columns], across, down) {
  const [width, height] = [across.length, down.length];
  const wide = new Float32Array(rows * width);
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < width; x++) {
      const { cells, weights } = across[x];
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += weights[k] * grid[y * columns + cells[k]];
      wide[y * width + x] = sum;
    }
  }
  let [least, most] = [Infinity, -Infinity];
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

/** Shares in colour on a canvas of their size; opaque ones have no photo under them. */
function paint(canvas, shares, { look = usual, start = 0, opaque = false }) {
  const symmetric = look.scale === "symmetric";
  const palette = palettes[look.colormap];
  const steps = palette.length / 3;
  const alphas = Uint8Array.from({ length: steps }, (_, step) => {
    if (opaque) return 255;
    if (start === null) return 0;
    if (look.opacity !== "ramp") return Math.round(255 * look.opacity);
    const share = step / (steps - 1);
    const strength = symmetric ? Math.abs(2 * share - 1) : share;
    return Math.round(255 * strongest * Math.max(0, (strength - start) / (1 - start)) ** fade);
  });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < shares.length; i++) {
    if (shares[i] !== shares[i]) {
      pixels.data[4 * i + 3] = opaque ? 0 : Math.round(255 * (1 - unseen));
      continue;
    }
    const step = Math.floor(shares[i] * (steps - 1) + 0.5);
    pixels.data[4 * i] = palette[3 * step];
    pixels.data[4 * i + 1] = palette[3 * step + 1];
    pixels.data[4 * i + 2] = palette[3 * step + 2];
    pixels.data[4 * i + 3] = alphas[step];
  }
  context.putImageData(pixels, 0, 0);
}

/** White marks with a dark edge in the corners of what the model saw, where that isn't all. */
function markCorners(canvas, across, down) {
  const extent = (side) => [side.findIndex(({ seen }) => seen), side.findLastIndex(({ seen }) => seen) + 1];
  if ([...across, ...down].every(({ seen }) => seen)) return;
  const [[left, right], [top, bottom]] = [extent(across), extent(down)];
  const longer = Math.max(canvas.width, canvas.height);
  const line = Math.max(1, Math.floor(longer / 320 + 0.5));
  const edge = Math.max(1, Math.floor(longer / 900 + 0.5));
  const sides = [right - left, bottom - top];
  const arm = Math.min(Math.max(4 * line, Math.floor(0.08 * Math.min(...sides) + 0.5)), ...sides);
  const bars = [];
  for (const [x, far] of [[left, left], [right - arm, right - line]]) // prettier-ignore
    for (const [y, end] of [[top, top], [bottom - arm, bottom - line]]) // prettier-ignore
      bars.push([x, end, arm, line], [far, y, line, arm]);
  const context = canvas.getContext("2d");
  for (const [margin, color] of [[edge, "rgb(20 20 24)"], [0, "white"]]) { // prettier-ignore
    context.fillStyle = color;
    for (const [x, y, wide, high] of bars)
      context.fillRect(x - margin, y - margin, wide + 2 * margin, high + 2 * margin);
  }
}

const lookOf = (row) => data.looks[data.lookOf[row]] ?? usual;

/** Draw the map of a row onto a canvas over its picture. */
async function drawRow(canvas, row, longer) {
  const original = [table.width[row], table.height[row]];
  const scale = longer / Math.max(...original);
  canvas.width = Math.max(1, Math.round(original[0] * scale));
  canvas.height = Math.max(1, Math.round(original[1] * scale));
  if (data.gridOf[row] < 0) return;
  const [rows, columns] = data.grids[data.gridOf[row]];
  const grid = Float64Array.from(new Uint16Array(bytes(await piles.maps.get(row)).buffer), (share) => share / 65535);
  const across = taps(canvas.width, original[0], table.grid_left[row], table.grid_right[row], columns);
  const down = taps(canvas.height, original[1], table.grid_top[row], table.grid_bottom[row], rows);
  if (lookOf(row).grey) canvas.style.backdropFilter = "grayscale(0.85)";
  paint(canvas, laidBack(grid, [rows, columns], across, down), { look: lookOf(row), start: data.starts[row] });
  markCorners(canvas, across, down);
}

/** Draw a square map of shares over the frame. */
function drawFrame(canvas, coded, most = 255) {
  const grid = Float32Array.from(bytes(coded), (value) => value / most);
  const side = Math.round(Math.sqrt(grid.length));
  canvas.width = canvas.height = 4 * side;
  const along = taps(canvas.width, 1, 0, 1, side);
  paint(canvas, laidBack(grid, [side, side], along, along), { opaque: true });
}

/** What the colours mean. */
function legend() {
  const signed = explained.map(lookOf).find((look) => look.scale === "symmetric");
  const look = explained.every((row) => lookOf(row).scale === "symmetric") && signed ? signed : usual;
  const canvas = element("canvas", { class: "ramp", "aria-hidden": "true", width: 256, height: 1 });
  paint(canvas, Float32Array.from({ length: 256 }, (_, i) => i / 255), { look, opaque: true });
  const ends = look === usual ? ["weak", "strong"] : look.ends;
  return element(
    "div",
    { class: "legend" },
    canvas,
    element("div", { class: "ends" }, ...ends.map((end) => element("span", {}, end))),
  );
}
