// Targets in words, as questions name them.

import type { Box } from "./wire.ts";

const pixels = (...values: number[]) => values.map((value) => value.toFixed(1).replace(/\.0$/, "")).join(",");

export const pointTarget = (x: number, y: number) => `point:${pixels(x, y)}`;
export const boxTarget = (box: Box) => `box:${pixels(...box)}`;
export const regionTarget = (points: [number, number][]) => `polygon:${points.map((one) => pixels(...one)).join(" ")}`;
export const textTarget = (text: string) => `text:${text}`;

export type Place =
  | { kind: "point"; points: [[number, number]] }
  | { kind: "box" | "region"; points: [number, number][] };

/** Where on the picture a target is, if it says so. */
export function placeOf(target: string): Place | null {
  const [, kind, rest] = /^(point|box|polygon):(.*)$/.exec(target) ?? [];
  if (!kind) return null;
  const numbers = rest.split(/[ ,]/).map(Number);
  if (!numbers.every(Number.isFinite)) return null;
  if (kind === "point") return { kind, points: [[numbers[0], numbers[1]]] };
  if (kind === "box") {
    if (numbers.length !== 4) return null; // a detection, by its number
    return { kind, points: corners(numbers as Box) };
  }
  return { kind: "region", points: numbers.flatMap((x, i) => (i % 2 ? [] : [[x, numbers[i + 1]] as [number, number]])) };
}

export const corners = ([left, top, right, bottom]: Box): [number, number][] => [
  [left, top],
  [right, top],
  [right, bottom],
  [left, bottom],
];
