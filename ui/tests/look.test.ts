import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { laidBack, range, tapsOf } from "../core/geometry.ts";
import { changed, heat, palette, shades } from "../core/look.ts";
import type { Box, Look } from "../core/wire.ts";

interface Case {
  raw: number[];
  grid: [number, number];
  picture: [number, number];
  area: Box;
  look: Look;
  shares: number[];
  span: [number, number];
  start: number;
  opacity: number[];
  color: number[];
  laid: number[];
}

// Written by make_fixtures.py.
const cases = JSON.parse(readFileSync(new URL("fixtures.json", import.meta.url), "utf8")) as Case[];

const near = (found: ArrayLike<number>, meant: number[], most: number) => {
  expect(found.length).toBe(meant.length);
  expect(Math.max(...meant.map((value, i) => Math.abs(value - found[i])))).toBeLessThanOrEqual(most);
};

test.each(cases.map((one, number) => ({ number, ...one })))("map $number is drawn as Python draws it", (one) => {
  const [height, width] = one.picture;
  const [rows, columns] = one.grid;
  const drawn = heat({ data: Float32Array.from(one.raw), rows, columns }, one.look, one.area, { width, height });
  near(drawn.shares.data, one.shares, 2e-5);
  near(drawn.span, one.span, 2e-5);
  expect(drawn.start).toBeCloseTo(one.start, 4);
  const colors = shades(drawn);
  near(one.opacity.map((_, i) => colors[4 * 93 * i + 3] / 255), one.opacity, 0.5 / 255 + 1e-6);
  near(one.color.map((_, i) => palette(one.look.colormap)[3 * 93 * ((i / 3) | 0) + (i % 3)]), one.color, 0);
  const across = tapsOf({ pixels: width, from: 0, to: width }, one.area[0], one.area[2], columns);
  const down = tapsOf({ pixels: height, from: 0, to: height }, one.area[1], one.area[3], rows);
  const [least, most] = range(drawn.shares.data);
  const meant = one.laid.map((share, i) =>
    across.seen[i % width] && down.seen[(i / width) | 0] ? Math.min(Math.max(share, least), most) : share,
  );
  const laid = laidBack(drawn.shares, across, down);
  laid.forEach((_, i) => (laid[i] *= across.seen[i % width] * down.seen[(i / width) | 0]));
  near(laid, meant, 2e-5);
});

test("nothing, next to nothing and the same everywhere aren't lit", () => {
  const size = { width: 2, height: 1 };
  const span = (...raw: number[]) =>
    heat({ data: Float32Array.from(raw), rows: 1, columns: raw.length }, cases[0].look, [0, 0, 2, 1], size).span;
  expect(span(0, 0)).toEqual([0, 0]);
  expect(span(-1, 0.005)).toEqual([0, 0]);
  expect(span(1, 1)).toEqual([0, 0]);
  expect(span(1, 2)).toEqual([0, 2]);
});

test("a symmetric scale shows both signs, in its own colours", () => {
  const look = changed(cases[0].look, { scale: "symmetric" });
  expect([look.part, look.colormap]).toEqual(["signed", "RdBu_r"]);
  expect(changed(look, { scale: "max", part: "negative" }).colormap).toBe("inferno");
});
