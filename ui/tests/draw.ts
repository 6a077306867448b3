// What tests/render/test_browser.py asks of a browser: maps over photos, painted by either painter.

import { overlay, Painter } from "../core/draw/index.ts";
import { heat } from "../core/look.ts";
import type { Box, Look } from "../core/wire.ts";

interface Map {
  photo: string;
  raw: number[];
  grid: [number, number];
  area: Box;
  look: Look;
}

const painters = {
  gl: new Painter(() => {}, "gl"),
  cpu: new Painter(() => {}, "cpu"),
  best: new Painter(),
};

async function painted(by: "gl" | "cpu", { photo, raw, grid, area, look }: Map): Promise<string> {
  if (painters[by].by !== by) throw new Error(`this browser has no ${by}`);
  const image = await createImageBitmap(await (await fetch(photo)).blob());
  const [below, above] = [document.createElement("canvas"), document.createElement("canvas")];
  for (const canvas of [below, above]) [canvas.width, canvas.height] = [image.width, image.height];
  const drawn = heat({ data: Float32Array.from(raw), rows: grid[0], columns: grid[1] }, look, area, image);
  painters[by].paint(above, overlay(drawn, area), image);
  const context = below.getContext("2d")!;
  if (look.grey) context.filter = "grayscale(0.85)";
  context.drawImage(image, 0, 0);
  context.filter = "none";
  context.drawImage(above, 0, 0);
  return below.toDataURL("image/png");
}

/** Milliseconds that each of so many changes of opacity takes on a canvas of a size. */
function paced(by: keyof typeof painters, map: Map, width: number, height: number, changes: number): number {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const grid = { data: Float32Array.from(map.raw), rows: map.grid[0], columns: map.grid[1] };
  const drawn = heat(grid, map.look, map.area, { width, height });
  const paint = (opacity: number) =>
    painters[by].paint(canvas, overlay({ ...drawn, look: { ...map.look, opacity } }, map.area), { width, height });
  const settled = () => canvas.getContext("2d")!.getImageData(0, 0, 1, 1);
  paint(0);
  settled();
  const start = performance.now();
  for (let i = 1; i <= changes; i++) paint(i / changes);
  settled();
  return (performance.now() - start) / changes;
}

Object.assign(window, { painted, paced });
