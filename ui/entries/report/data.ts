// What a report's page holds, and how it is read; report/document.py writes it.

import { overlay } from "../../core/draw/layer.ts";
import { addPalette } from "../../core/look.ts";
import type { Look } from "../../core/wire.ts";
import type { Value } from "../../views/run/format.ts";
import type { Pictures } from "../../views/run/run.svelte.ts";
import { type ColumnAbout, type Columns, RunTable } from "../../views/run/table.ts";
import { Pile, type PileAbout } from "./piles.ts";

/** A map of the common frame in base64, with a line and a quiet line below it. */
export interface Framed {
  map: string;
  title: string;
  note: string;
}

/** Lines of text, and maps, rows or parts of rows' pictures (row, y, x) beside them. */
export interface Group {
  title: string;
  notes: string[];
  flag?: string;
  name: string;
  frames?: Framed[];
  rows?: number[];
  captions?: string[];
  patches?: [number, number, number][];
  field?: [number, number];
}

export type Block =
  | { kind: "text"; text: string }
  | { kind: "frames"; items: Framed[] }
  | { kind: "table"; columns: { kind: string; title: string }[]; rows: Value[][]; column: string | null }
  | { kind: "groups"; title: string; items: Group[]; strip: number; search: string };

type Packed = Value[] | { real: string } | { codes: number[]; words: string[] };

interface Data {
  /** Rows of the run itself; those of a run that it is compared with follow. */
  count: number;
  sections: { name: string; blocks: Block[] }[];
  table: Record<string, Packed>;
  columns: [name: string, group: string, unit: ColumnAbout["unit"]][];
  piles: { maps: PileAbout; pictures: PileAbout };
  grids: [rows: number, columns: number][];
  /** By row, -1 for none. */
  gridOf: number[];
  pictureOf: number[];
  lookOf: number[];
  looks: Look[];
  /** By row, the strength from which on a ramp has colour; null where there's nothing to draw. */
  starts: (number | null)[];
  steps: Record<number, number>;
  caveats: Record<number, string>;
  titles: Record<string, string>;
  /** RGB in base64. */
  palettes: Record<string, string>;
}

export function bytes(base64: string): Uint8Array<ArrayBuffer> {
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

function unpacked(packed: Packed): ArrayLike<Value> {
  if (Array.isArray(packed)) return packed;
  if ("real" in packed) return new Float32Array(bytes(packed.real).buffer);
  return packed.codes.map((code) => (code < 0 ? null : packed.words[code]));
}

/** What the page holds. */
export function read() {
  const data = JSON.parse(document.getElementById("data")!.textContent!) as Data;
  for (const [name, colors] of Object.entries(data.palettes)) addPalette(name, bytes(colors));
  const columns = Object.fromEntries(Object.entries(data.table).map(([name, packed]) => [name, unpacked(packed)]));
  const about = data.columns.map(([name, group, unit]) => ({ name, group, unit }));
  const table = new RunTable(columns, about, data.count, data.titles);
  return { table, pictures: new Packs(data, columns), sections: data.sections, look: common(data, table) };
}

/** How heatmaps are drawn: signed where all are. */
function common({ looks, lookOf }: Data, { explained }: RunTable): Pick<Look, "colormap" | "scale" | "ends"> {
  const shown = explained.map((row) => looks[lookOf[row]]);
  const signed = shown.length > 0 && shown.every(({ scale }) => scale === "symmetric");
  return signed ? shown[0] : { colormap: "inferno", scale: "max", ends: ["", ""] };
}

/** Maps and pictures from the piles of a page. */
class Packs implements Pictures {
  private maps: Pile;
  private pictures: Pile;

  constructor(
    private data: Data,
    private columns: Columns,
  ) {
    this.maps = new Pile("maps", data.piles.maps);
    this.pictures = new Pile("pictures", data.piles.pictures);
  }

  async picture(row: number) {
    const number = this.data.pictureOf[row];
    return number < 0 ? null : `data:image/jpeg;base64,${await this.pictures.get(number)}`;
  }

  async map(row: number) {
    const { grids, gridOf, looks, lookOf, starts } = this.data;
    if (gridOf[row] < 0) return null;
    const [rows, columns] = grids[gridOf[row]];
    const coded = new Uint16Array(bytes(await this.maps.get(row)).buffer);
    const shares = { data: Float32Array.from(coded, (share) => share / 65535), rows, columns };
    const [look, start] = [looks[lookOf[row]], starts[row]];
    const [left, top, right, bottom] = ["left", "top", "right", "bottom"].map((side) =>
      Number(this.columns[`grid_${side}`][row]),
    );
    const heat = { shares, span: [0, start === null ? 0 : 1] as [number, number], start: start ?? 0, look };
    return { layer: overlay(heat, [left, top, right, bottom]), grey: look.grey };
  }

  caveat(row: number) {
    return this.data.caveats[row] ?? "";
  }

  steps(row: number) {
    return this.data.steps[row] ?? 0;
  }
}
