// Everything that a person has set, as one plain object that is also the link.

import type { Box, Look, Muting } from "./wire.ts";

export type Panel = "ask" | "look" | "layers" | "trust" | "compare" | "take";

export interface State {
  model: string;
  picture: string;
  /** What is explained, in words; and rather than which class. */
  target: string;
  versus: string;
  /** By name; empty: the model's default. */
  method: string;
  layer: string;
  /** Ways to smooth a heatmap. */
  aug_smooth: boolean;
  noise_smooth: number;
  eigen_smooth: boolean;
  muted: Muting[];
  /** What is changed of the heatmap's own look. */
  look: Partial<Look>;
  /** Whether the heatmap is on. */
  heat: boolean;
  /** How far the before/after slider uncovers the photo, 0..1. */
  split: number;
  /** The part of the picture that is shown: its centre in shares of the picture, and how much larger than fitted. */
  zoom: { x: number; y: number; scale: number };
  panel: Panel;
  /** The layer whose feature maps are open, their order, and the channels that are pinned. */
  open: string;
  order: "mean" | "variance" | "influence";
  pinned: number[];
  /** A place of the open layer that is looked at. */
  place: [number, number] | null;
  /** What stands side by side. */
  by: "method" | "layer" | "model" | "picture";
  beside: string[];
  /** Whether the difference of two that stand side by side is shown too. */
  minus: boolean;
  /** A box around what was missed. */
  missed: Box | null;
  /** The run that is browsed, and which of its rows are asked for; see core/runs.ts. */
  run: string;
  wanted: Record<string, string>;
}

export const START: State = {
  model: "",
  picture: "",
  target: "predicted",
  versus: "",
  method: "",
  layer: "",
  aug_smooth: false,
  noise_smooth: 0,
  eigen_smooth: false,
  muted: [],
  look: {},
  heat: true,
  split: 0,
  zoom: { x: 0.5, y: 0.5, scale: 1 },
  panel: "ask",
  open: "",
  order: "influence",
  pinned: [],
  place: null,
  by: "method",
  beside: [],
  minus: false,
  missed: null,
  run: "",
  wanted: {},
};

const VERSION = "1";

/** The part of a link after `#`: what differs from the start, texts as they are and all else as JSON. */
export function encode(state: State): string {
  const fields = Object.entries(state).filter(([name, value]) => !same(value, START[name as keyof State]));
  const texts = fields.map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
  return new URLSearchParams([["v", VERSION], ...texts]).toString();
}

/** A state from a link; fields that aren't known, or aren't what they should be, are left out. */
export function decode(hash: string): State {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const state = structuredClone(START);
  if (fields.get("v") !== VERSION) return state;
  for (const name of Object.keys(START) as (keyof State)[]) {
    const text = fields.get(name);
    if (text === null) continue;
    const value = typeof START[name] === "string" ? text : parsed(text);
    if (fits(name, value)) Object.assign(state, { [name]: value });
  }
  return state;
}

/** What a field must be like, where the kind of its first value doesn't say all. */
const CHECKS: { [name in keyof State]?: (value: unknown) => boolean } = {
  muted: (value) => Array.isArray(value) && value.every((one) => typeof one?.layer === "string" && numbers(one.numbers)),
  zoom: (value) => numbers(Object.values(value as object)) && (value as State["zoom"]).scale >= 1,
  split: (value) => (value as number) >= 0 && (value as number) <= 1,
  panel: among("ask", "look", "layers", "trust", "compare", "take"),
  order: among("mean", "variance", "influence"),
  by: among("method", "layer", "model", "picture"),
  pinned: numbers,
  place: (value) => value === null || (numbers(value) && (value as number[]).length === 2),
  missed: (value) => value === null || (numbers(value) && (value as number[]).length === 4),
  wanted: (value) => Object.values(value as object).every((one) => typeof one === "string"),
  beside: (value) => Array.isArray(value) && value.every((one) => typeof one === "string"),
};

function fits(name: keyof State, value: unknown): boolean {
  const start = START[name];
  if (start !== null && (typeof value !== typeof start || value === null || Array.isArray(value) !== Array.isArray(start)))
    return false;
  return CHECKS[name]?.(value) ?? true;
}

function among(...words: string[]) {
  return (value: unknown) => words.includes(value as string);
}

function numbers(value: unknown): boolean {
  return Array.isArray(value) && value.every((one) => typeof one === "number" && Number.isFinite(one));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);
