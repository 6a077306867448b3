// Two heatmaps of one picture, subtracted: as hookmap.results.difference.

import { type Grid, laidBack, type Size, tapsOf } from "./geometry.ts";
import { changed, type Heat, heat, heatOf } from "./look.ts";
import type { Box, Look } from "./wire.ts";

/** Cells along the longer side of the picture, on which both maps are laid. */
const SIDE = 256;
/** Of the scale: the smallest difference that is drawn as the strongest, so that maps which are alike look alike. */
const LEAST = 0.25;

export interface Laid {
  map: Grid;
  look: Look;
  area: Box;
}

export interface Difference {
  heat: Heat;
  /** What of the picture both models saw. */
  area: Box;
  /** The largest difference in shares of the scale, of either sign. */
  strongest: number;
}

/**
 * First minus second, each in shares of its own scale; null where they have no place of the picture in common.
 *
 * @param ends what the two colours mean: more in the second, more in the first
 */
export function difference(
  first: Laid,
  second: Laid,
  picture: Size,
  ends: Look["ends"],
  changes: Partial<Look> = {},
): Difference | null {
  const both = [first, second].map((one) => ({ ...one, look: changed(one.look, changes) }));
  const signed = both.some(({ look }) => look.scale === "symmetric");
  const factor = SIDE / Math.max(picture.width, picture.height);
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.round(side * factor)));
  const laid = both.map(({ map, look, area }) => {
    const { shares } = heat(map, signed ? changed(look, { scale: "symmetric" }) : look, area, picture);
    const across = tapsOf({ pixels: width, from: 0, to: picture.width }, area[0], area[2], map.columns);
    const down = tapsOf({ pixels: height, from: 0, to: picture.height }, area[1], area[3], map.rows);
    return { across, down, values: laidBack(shares, across, down) };
  });
  const seen = (side: "across" | "down", pixels: number) => {
    const at = Array.from({ length: pixels }, (_, i) => i).filter((i) => laid.every((one) => one[side].seen[i]));
    return { from: at[0], count: at.length };
  };
  const [x, y] = [seen("across", width), seen("down", height)];
  if (!x.count || !y.count) return null;

  const values = { rows: y.count, columns: x.count, data: new Float32Array(y.count * x.count) };
  values.data.forEach((_, i) => {
    const at = (y.from + Math.floor(i / x.count)) * width + x.from + (i % x.count);
    values.data[i] = (signed ? 2 : 1) * (laid[0].values[at] - laid[1].values[at]);
  });
  const strongest = values.data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const limit = Math.max(LEAST, strongest);
  const [wide, high] = [picture.width / width, picture.height / height];
  return {
    heat: heatOf(values, { ...LOOK, limit, ends }, [-limit, limit]),
    area: [x.from * wide, y.from * high, (x.from + x.count) * wide, (y.from + y.count) * high],
    strongest,
  };
}

const LOOK: Omit<Look, "ends"> = {
  part: "signed",
  scale: "symmetric",
  limit: null,
  outliers: 0,
  colormap: "PiYG",
  opacity: "ramp",
  threshold: 0,
  grey: true,
};
