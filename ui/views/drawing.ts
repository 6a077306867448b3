// From answers to what is painted.

import { type Layer, overlay } from "../core/draw/index.ts";
import { type Grid, range, type Size } from "../core/geometry.ts";
import { changed, type Heat, heat, heatOf, opaque } from "../core/look.ts";
import type { Tensor } from "../core/safetensors.ts";
import type { Box, Channels, Drawn, Look } from "../core/wire.ts";

/** The last two axes of a tensor; of a volume or a clip its sum over the others. */
export function gridOf({ shape, data }: Tensor): Grid {
  const [rows, columns] = [shape.at(-2) ?? 1, shape.at(-1) ?? 1];
  if (data.length === rows * columns) return { rows, columns, data };
  const sum = new Float32Array(rows * columns);
  data.forEach((value, i) => (sum[i % sum.length] += value));
  return { rows, columns, data: sum };
}

export interface Painted {
  heat: Heat;
  layer: Layer;
  grey: boolean;
}

/** A heatmap with a person's changes to its look. */
export function painted(drawn: Pick<Drawn, "look" | "area">, map: Tensor, picture: Size, changes: Partial<Look> = {}): Painted {
  const look = changed(drawn.look, changes);
  const found = heat(gridOf(map), look, drawn.area, picture);
  return { heat: found, layer: overlay(found, drawn.area), grey: look.grey };
}

/** What of the picture a grid covers: the part that its tile shows, and how high it is for its width. */
export function covered([left, top, right, bottom]: Box, { width, height }: Size): { part: Box; aspect: number } {
  const part: Box = [Math.max(0, left), Math.max(0, top), Math.min(width, right), Math.min(height, bottom)];
  return { part, aspect: (part[3] - part[1]) / (part[2] - part[0]) };
}

const FEATURE: Look = {
  part: "signed",
  scale: "minmax",
  limit: null,
  outliers: 0,
  colormap: "inferno",
  opacity: "ramp",
  threshold: 0,
  grey: false,
  ends: ["low", "high"],
};

/** A grid of values between its lowest and highest, over the photo or alone. */
export function feature(grid: Grid, area: Box, { over }: { over: boolean }): Layer {
  const found = heatOf(grid, FEATURE, range(grid.data));
  return over ? overlay(found, area) : { shares: found.shares, area, colors: opaque("viridis"), shade: 0 };
}

/** The map of the channel at a place in `numbers`. */
export function channelGrid(maps: Tensor, at: number): Grid {
  const [, rows, columns] = maps.shape;
  return { rows, columns, data: maps.data.subarray(at * rows * columns, (at + 1) * rows * columns) };
}

export const placeIn = (channels: Channels, number: number) => channels.numbers.indexOf(number);
