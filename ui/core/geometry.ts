// Where a grid lies on a picture, and how it is laid onto pixels: as hookmap.images.geometry, kernel "cubic".

import type { Box } from "./wire.ts";

/** Values on a grid, row by row. */
export interface Grid {
  data: Float32Array;
  rows: number;
  columns: number;
}

export interface Size {
  width: number;
  height: number;
}

/** One side of a picture's part that is drawn: so many pixels, from one coordinate of the picture to another. */
export interface Side {
  pixels: number;
  from: number;
  to: number;
}

/** Of each pixel along a side: four cells and their weights, and whether the model saw it. */
export interface Taps {
  cells: Int32Array;
  weights: Float32Array;
  seen: Uint8Array;
}

export function cubic(distance: number): number {
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  return distance < 2 ? ((-0.5 * distance + 2.5) * distance - 4) * distance + 2 : 0;
}

/** @param low where the grid begins on the picture, @param high where it ends. */
export function tapsOf({ pixels, from, to }: Side, low: number, high: number, count: number): Taps {
  const taps = {
    cells: new Int32Array(4 * pixels),
    weights: new Float32Array(4 * pixels),
    seen: new Uint8Array(pixels),
  };
  for (let i = 0; i < pixels; i++) {
    const share = (from + ((i + 0.5) * (to - from)) / pixels - low) / (high - low);
    const at = Math.min(Math.max(share * count - 0.5, 0), count - 1);
    const first = Math.floor(at) - 1;
    for (let k = 0; k < 4; k++) {
      taps.cells[4 * i + k] = Math.min(Math.max(first + k, 0), count - 1);
      taps.weights[4 * i + k] = cubic(Math.abs(at - first - k));
    }
    taps.seen[i] = share >= 0 && share <= 1 ? 1 : 0;
  }
  return taps;
}

/** A grid on pixels, within the grid's own range, because the kernel overshoots. */
export function laidBack({ data, columns, rows }: Grid, across: Taps, down: Taps): Float32Array {
  const [width, height] = [across.seen.length, down.seen.length];
  const wide = new Float32Array(rows * width);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < width; x++) {
      let sum = 0;
      for (let k = 4 * x; k < 4 * x + 4; k++) sum += across.weights[k] * data[y * columns + across.cells[k]];
      wide[y * width + x] = sum;
    }
  const [least, most] = range(data);
  const values = new Float32Array(width * height);
  for (let y = 0; y < height; y++) {
    const [a, b, c, d] = down.cells.subarray(4 * y, 4 * y + 4).map((row) => row * width);
    const [p, q, r, s] = down.weights.subarray(4 * y, 4 * y + 4);
    for (let x = 0; x < width; x++) {
      const sum = p * wide[a + x] + q * wide[b + x] + r * wide[c + x] + s * wide[d + x];
      values[y * width + x] = sum < least ? least : sum > most ? most : sum;
    }
  }
  return values;
}

export function range(values: Float32Array): [number, number] {
  let [least, most] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return [least, most];
}

/** The rows and columns (from, to) of a grid that lie on the picture, and not on what was padded to it. */
export function cellsOn(grid: Grid, area: Box, picture: Size): { rows: [number, number]; columns: [number, number] } {
  const side = (count: number, low: number, high: number, pixels: number): [number, number] => {
    const cell = (at: number) => (count * (at - low)) / (high - low);
    return [Math.max(0, Math.floor(cell(0) + 1e-6)), Math.min(count, Math.ceil(cell(pixels) - 1e-6))];
  };
  return {
    rows: side(grid.rows, area[1], area[3], picture.height),
    columns: side(grid.columns, area[0], area[2], picture.width),
  };
}

/** The cells of a grid that lie on the picture. */
export function onPicture(grid: Grid, area: Box, picture: Size): Float32Array {
  const { rows, columns } = cellsOn(grid, area, picture);
  const wide = Math.max(0, columns[1] - columns[0]);
  const found = new Float32Array(Math.max(0, rows[1] - rows[0]) * wide);
  for (let y = rows[0]; y < rows[1]; y++) {
    const from = y * grid.columns + columns[0];
    found.set(grid.data.subarray(from, from + wide), (y - rows[0]) * wide);
  }
  return found;
}
