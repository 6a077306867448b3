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
};

async function painted(painter: Painter, { photo, raw, grid, area, look }: Map): Promise<string> {
  const image = await createImageBitmap(await (await fetch(photo)).blob());
  const [below, above] = [document.createElement("canvas"), document.createElement("canvas")];
  for (const canvas of [below, above]) [canvas.width, canvas.height] = [image.width, image.height];
  const drawn = heat({ data: Float32Array.from(raw), rows: grid[0], columns: grid[1] }, look, area, image);
  painter.paint(above, overlay(drawn, area), image);
  const context = below.getContext("2d")!;
  if (look.grey) context.filter = "grayscale(0.85)";
  context.drawImage(image, 0, 0);
  context.filter = "none";
  context.drawImage(above, 0, 0);
  return below.toDataURL("image/png");
}

/** The same by a painter whose graphics card went away: by whom, and how the map is drawn. */
async function withoutCard(map: Map): Promise<string> {
  const canvases: HTMLCanvasElement[] = [];
  const create = document.createElement.bind(document);
  document.createElement = ((kind: string) => {
    const made = create(kind);
    if (made instanceof HTMLCanvasElement) canvases.push(made);
    return made;
  }) as typeof document.createElement;
  let painter!: Painter;
  await new Promise<void>((resolve) => {
    painter = new Painter(resolve, "gl");
    canvases[0].getContext("webgl2")!.getExtension("WEBGL_lose_context")!.loseContext();
  });
  document.createElement = create;
  return `${painter.by} ${await painted(painter, map)}`;
}

const byProcessor = async (map: Map) => `cpu ${await painted(painters.cpu, map)}`;

Object.assign(window, { painters, painted, withoutCard, byProcessor });
