// A layer onto a canvas by whoever paints, and the marks that are the same by all.

import type { Size } from "../geometry.ts";
import type { Box } from "../wire.ts";
import { type Frame, frameOf, type Layer } from "./layer.ts";

export interface Painting {
  paint(context: CanvasRenderingContext2D, layer: Layer, frame: Frame): void;
}

/** Paint a layer onto the whole of a canvas, which shows `part` of the picture. */
export function paintBy(
  painter: (frame: Frame) => Painting,
  canvas: HTMLCanvasElement,
  layer: Layer,
  picture: Size,
  part: Box = [0, 0, picture.width, picture.height],
): void {
  const context = canvas.getContext("2d")!;
  const frame = frameOf(canvas, part);
  painter(frame).paint(context, layer, frame);
  if (layer.shade > 0) markCorners(context, layer, frame, picture);
}

/** White marks with a dark edge in the corners of what the model saw, where that isn't all. */
function markCorners(context: CanvasRenderingContext2D, { area }: Layer, frame: Frame, { width, height }: Size): void {
  const across = seen(area[0], area[2], width, frame.across);
  const down = seen(area[1], area[3], height, frame.down);
  if (across.whole && down.whole) return;
  const [left, right, top, bottom] = [across.first, across.end, down.first, down.end];
  const longer = Math.max(frame.across.pixels, frame.down.pixels);
  const line = Math.max(1, Math.floor(longer / 320 + 0.5));
  const edge = Math.max(1, Math.floor(longer / 900 + 0.5));
  const sides = [right - left, bottom - top];
  const arm = Math.min(Math.max(4 * line, Math.floor(0.08 * Math.min(...sides) + 0.5)), ...sides);
  const bars = [
    [left, left],
    [right - arm, right - line],
  ].flatMap(([x, far]) =>
    [
      [top, top],
      [bottom - arm, bottom - line],
    ].flatMap(([y, end]) => [
      [x, end, arm, line],
      [far, y, line, arm],
    ]),
  );
  for (const [margin, color] of [
    [edge, "rgb(20 20 24)"],
    [0, "white"],
  ] as const) {
    context.fillStyle = color;
    for (const [x, y, wide, high] of bars)
      context.fillRect(x - margin, y - margin, wide + 2 * margin, high + 2 * margin);
  }
}

/** The first pixel of the picture that the model saw, the one after the last, and whether that is all of them. */
function seen(low: number, high: number, length: number, { pixels, from, to }: Frame["across"]) {
  const pixel = (at: number) => ((at - from) * pixels) / (to - from);
  const [start, stop] = [Math.round(pixel(0)), Math.round(pixel(length))];
  const first = Math.max(start, Math.ceil(pixel(low) - 0.5));
  const end = Math.min(stop, Math.floor(pixel(high) - 0.5) + 1);
  return { first, end, whole: first === start && end === stop };
}
