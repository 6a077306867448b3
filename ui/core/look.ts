// From a map's values to shares of its scale, and from these to colours: as hookmap.render.colors.

import { type Grid, onPicture, range, type Size } from "./geometry.ts";
import { PALETTES } from "./palettes.ts";
import type { Box, Look, Part } from "./wire.ts";

/** Of colour and opacity between the weakest and the strongest. */
export const STEPS = 1024;
const [STRONGEST, FADE] = [0.85, 1.2];
const [WEAKEST, LATEST] = [0.2, 0.5];
/** A map whose strongest place is a smaller share of all evidence is faint, and not lit. */
const FAINT = 0.01;

export type Span = [number, number];

/** A map that is ready to be drawn over its picture in any size. */
export interface Heat {
  /** Shares of the scale, 0..1; 0.5 is zero where the look is symmetric. */
  shares: Grid;
  /** The values that are drawn as 0 and as 1; the same twice where there is nothing to draw. */
  span: Span;
  /** Of a ramp, the strength from which on it has colour, 0..1. */
  start: number;
  look: Look;
}

export const blank = ({ span: [low, high] }: Heat) => !(high > low);

/** A look with a person's changes; a symmetric scale shows the whole signed map. */
export function changed(look: Look, changes: Partial<Look>): Look {
  const found = { ...look, ...changes };
  const recoloured = changes.scale !== undefined && (changes.scale === "symmetric") !== (look.scale === "symmetric");
  if (recoloured && changes.colormap === undefined) found.colormap = found.scale === "symmetric" ? "RdBu_r" : "inferno";
  if (found.scale === "symmetric") found.part = "signed";
  return found;
}

/** What is shown of a signed map; its negative part as positive numbers. */
export function partOf(raw: Float32Array, part: Part): Float32Array {
  if (part === "signed") return raw.map(finite);
  const sign = part === "negative" ? -1 : 1;
  return raw.map((value) => Math.max(0, sign * finite(value)));
}

/** The values drawn as the weakest and as the strongest; `evidence` are magnitudes for and against. */
export function spanOf(values: Float32Array, evidence: Float32Array, look: Look): Span {
  if (look.scale === "minmax") return values.length ? range(values.map(finite)) : [0, 0];
  const there = look.limit === null ? evidence.filter((size) => finite(size) > 0) : null;
  const high = look.limit ?? (there!.length ? quantile(there!, 1 - look.outliers) : 0);
  return [look.scale === "symmetric" ? -high : 0, high];
}

/** A map in shares of a scale. */
export function heatOf(values: Grid, look: Look, [low, high]: Span): Heat {
  const symmetric = look.scale === "symmetric";
  if (!(high > low)) {
    const shares = { ...values, data: new Float32Array(values.data.length).fill(symmetric ? 0.5 : 0) };
    return { shares, span: [0, 0], start: 0, look };
  }
  const data = values.data.map((value) => Math.min(Math.max((finite(value) - low) / (high - low), 0), 1));
  const strength = symmetric ? data.map((share) => Math.abs(2 * share - 1)) : data;
  return {
    shares: { ...values, data },
    span: [low, high],
    start: Math.min(quantile(strength, WEAKEST), LATEST),
    look,
  };
}

/** A signed map as it is drawn over its picture, on its own scale or a given one. */
export function heat(raw: Grid, look: Look, area: Box, picture: Size, span?: Span): Heat {
  const values = { ...raw, data: partOf(raw.data, look.part) };
  if (!lit(raw.data, values.data)) return heatOf(values, look, [0, 0]);
  const evidence = onPicture(raw, area, picture).map(Math.abs);
  return heatOf(values, look, span ?? spanOf(onPicture(values, area, picture), evidence, look));
}

/** Nothing, next to nothing and the same everywhere aren't lit. */
function lit(raw: Float32Array, values: Float32Array): boolean {
  const most = strongest(raw);
  const strength = most > 0 ? strongest(values) / most : 0;
  const [low, high] = range(values);
  return strength >= FAINT && high - low > 1e-6 * Math.abs(high);
}

const strongest = (values: Float32Array) => values.reduce((most, value) => Math.max(most, Math.abs(finite(value))), 0);

/** Colours of shares from 0 to 1, RGBA with opacity as the last, `STEPS` of them. */
export function shades(heat: Heat): Uint8ClampedArray {
  const { look, start } = heat;
  const colors = palette(look.colormap);
  const found = new Uint8ClampedArray(4 * STEPS);
  for (let step = 0; step < STEPS; step++) {
    found.set(colors.subarray(3 * step, 3 * step + 3), 4 * step);
    found[4 * step + 3] = 255 * opacity(step / (STEPS - 1));
  }
  return found;

  function opacity(share: number): number {
    const strength = look.scale === "symmetric" ? Math.abs(2 * share - 1) : share;
    if (blank(heat) || strength < look.threshold) return 0;
    if (look.opacity !== "ramp") return look.opacity;
    return STRONGEST * Math.max(0, (strength - start) / (1 - start)) ** FADE;
  }
}

/** The same without a photo under it. */
export function opaque(colormap: string): Uint8ClampedArray {
  const colors = palette(colormap);
  return Uint8ClampedArray.from({ length: 4 * STEPS }, (_, i) => (i % 4 === 3 ? 255 : colors[3 * (i >> 2) + (i % 4)]));
}

const made = new Map<string, Uint8Array>();

/** The colours of a colour map from its lowest on, RGB, `STEPS` of them. */
export function palette(name: string): Uint8Array {
  const known = made.get(name);
  if (known) return known;
  const coded = atob(PALETTES[name as keyof typeof PALETTES] ?? PALETTES.inferno); // 256 colours
  const found = new Uint8Array(3 * STEPS);
  for (let step = 0; step < STEPS; step++) {
    const at = (255 * step) / (STEPS - 1);
    const low = Math.min(Math.floor(at), 254);
    for (let c = 0; c < 3; c++) {
      const [a, b] = [coded.charCodeAt(3 * low + c), coded.charCodeAt(3 * low + 3 + c)];
      found[3 * step + c] = Math.round(a + (at - low) * (b - a));
    }
  }
  made.set(name, found);
  return found;
}

/** Add a colour map that isn't offered, RGB, `STEPS` of them. */
export function addPalette(name: string, colors: Uint8Array): void {
  made.set(name, colors);
}

const finite = (value: number) => (Number.isFinite(value) ? value : 0);

/** As numpy's, interpolated. */
export function quantile(values: Float32Array, share: number): number {
  const sorted = values.slice().sort();
  const at = share * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
}
