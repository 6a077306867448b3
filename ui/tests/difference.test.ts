import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { difference } from "../core/difference.ts";
import type { Box, Look } from "../core/wire.ts";

interface Given {
  raw: number[];
  grid: [number, number];
  area: Box;
  look: Look;
}
interface Case {
  picture: [number, number];
  given: [Given, Given];
  shape: [number, number];
  values: number[];
  area: Box;
  limit: number;
  strongest: number;
}

// Written by make_fixtures.py.
const cases = JSON.parse(readFileSync(new URL("differences.json", import.meta.url), "utf8")) as Case[];

test.each(cases.map((one, number) => ({ number, ...one })))("difference $number is as Python's", (one) => {
  const [height, width] = one.picture;
  const [first, second] = one.given.map(({ raw, grid: [rows, columns], look, area }) => ({
    map: { data: Float32Array.from(raw), rows, columns },
    look,
    area,
  }));
  const found = difference(first, second, { width, height }, ["less", "more"])!;
  expect([found.heat.shares.rows, found.heat.shares.columns]).toEqual(one.shape);
  found.area.forEach((side, i) => expect(side).toBeCloseTo(one.area[i], 3));
  expect(found.strongest).toBeCloseTo(one.strongest, 4);
  expect(found.heat.span[1]).toBeCloseTo(one.limit, 4);
  const values = found.heat.shares.data.map((share) => (2 * share - 1) * one.limit);
  const off = one.values.map((value, i) => Math.abs(value - values[37 * i]));
  expect(Math.max(...off)).toBeLessThan(1e-4);
});

test("maps of different places have no difference", () => {
  const [{ given, picture }] = cases;
  const [first] = given.map(({ raw, grid: [rows, columns], look }) => ({
    map: { data: Float32Array.from(raw), rows, columns },
    look,
    area: [0, 0, 5, 5] as Box,
  }));
  const [height, width] = picture;
  expect(difference(first, { ...first, area: [6, 6, 8, 8] }, { width, height }, ["", ""])).toBeNull();
});
