// What the views of a run share: its table, where its maps and pictures come from, and what a person has set.

import { CpuPainter } from "../../core/draw/cpu.ts";
import type { Layer } from "../../core/draw/layer.ts";
import { paintBy } from "../../core/draw/painting.ts";
import type { Size } from "../../core/geometry.ts";
import { Pages } from "./pages.svelte.ts";
import { everything, type RunTable } from "./table.ts";

/** Where maps and pictures of rows come from. */
export interface Pictures {
  /** The address of a small copy of a row's image; nothing where none is kept. */
  picture(row: number): Promise<string | null>;
  /** A row's map, and whether its picture is grey under it. */
  map(row: number): Promise<{ layer: Layer; grey: boolean } | null>;
  /** Why a row's map shows little or nothing. */
  caveat(row: number): string;
  /** Steps of a clip, which are summed; 0 for a picture. */
  steps(row: number): number;
}

/** Rows that have a name. */
export interface Scope {
  name: string;
  rows: readonly number[];
}

const painter = new CpuPainter(); // faster for small pictures, and always there

export const paint = (canvas: HTMLCanvasElement, layer: Layer, picture: Size) =>
  paintBy(() => painter, canvas, layer, picture);

export class RunView {
  query = $state(everything());
  /** The rows that the gallery is narrowed to. */
  scope = $state.raw<Scope | null>(null);
  /** How strongly heatmaps are drawn, 0..100. */
  heat = $state(100);
  /** What is open large, among which rows. */
  opened = $state.raw<{ rows: readonly number[]; at: number } | null>(null);
  /** What the gallery shows. */
  readonly found = $derived.by(() => this.table.find(this.query, this.scope?.rows));
  readonly pages = new Pages(() => this.found, 60);

  constructor(
    readonly table: RunTable,
    readonly pictures: Pictures,
  ) {}

  clear(scope: Scope | null = null): void {
    this.query = everything();
    this.scope = scope;
  }

  open(rows: readonly number[], at: number): void {
    this.opened = { rows, at };
  }

  described(row: number): string {
    return this.table.described(row, this.pictures.caveat(row));
  }

  size(row: number): Size {
    const { width, height } = this.table.columns;
    return { width: Number(width[row]) || 1, height: Number(height[row]) || 1 };
  }

  /** Four sides of a row's rectangle of this name, in shares of its picture. */
  box(name: "box" | "grid", row: number): { left: number; top: number; right: number; bottom: number } {
    const { width, height } = this.size(row);
    const side = (which: string) => Number(this.table.columns[`${name}_${which}`][row]);
    return {
      left: side("left") / width,
      top: side("top") / height,
      right: side("right") / width,
      bottom: side("bottom") / height,
    };
  }
}
