// A run's table: what its rows say, and which of them a person asks for.

import { say, type Word } from "../../core/strings.ts";
import { holds, wordsOf } from "./finding.ts";
import { known, percent, plain, short, type Value } from "./format.ts";

/** By name, a value for each row. */
export type Columns = Record<string, ArrayLike<Value>>;

/** What a column is about, and its unit: a share, pixels of the picture, a number of something, or none. */
export interface ColumnAbout {
  name: string;
  group: string;
  unit: "share" | "pixels" | "number" | "";
}

/** Columns that rows are filtered by, and what they are called. */
export const FILTERS = {
  label: "labelled",
  prediction: "predicted",
  outcome: "outcome",
  asked: "target",
  method: "method",
  layer: "layer",
  evidence: "evidence",
} as const satisfies Record<string, Word>;
export type Filter = keyof typeof FILTERS;

/** What rows are sorted by: a column, or the order of the data. */
export const ORDERS = {
  "": "orderOfData",
  probability: "orderProbability",
  target_probability: "orderTargetProbability",
  target_score: "orderTargetScore",
  half_area: "orderHalfArea",
  entropy: "orderEntropy",
  border: "orderBorder",
  corner: "orderCorner",
  in_box: "orderInBox",
  in_mask: "orderInMask",
  iou: "orderIou",
} as const satisfies Record<string, Word>;
export type Order = keyof typeof ORDERS;
/** Orders whose values stand at a tile anyway. */
const TOLD: Order[] = ["probability", "target_probability", "target_score"];

/** A column of a row, its value in words, and whether it is a text. */
export interface Fact {
  name: string;
  text: string;
  words: boolean;
}

export interface Query {
  search: string;
  /** Only rows with these values. */
  wanted: { [name in Filter]?: string };
  sort: Order;
  descending: boolean;
}

export const everything = (): Query => ({ search: "", wanted: {}, sort: "", descending: false });

const OUTCOMES = { correct: "correct", wrong: "incorrect", unknown: "unknown" } as const satisfies Record<string, Word>;
/** How much evidence a map shows, in words, where that is none to speak of. */
const SILENCE: Record<string, Word> = { none: "evidenceNone", faint: "evidenceFaint", even: "evidenceEven" };
const SEARCHED = ["id", "label", "prediction", "target", "where", "method", "layer", "truth"];
/** Rows with the same of these are one heatmap. */
const SAME = ["id", "target_index", "target_score", "method", "layer"];

export class RunTable {
  /** Rows with a heatmap. */
  readonly explained: number[];
  /** Rows that say again what another says: where label and prediction agree, both targets are one class. */
  readonly twins: Set<number>;
  /** What rows can be sorted by, with its name. */
  readonly orders: [Order, string][];
  private readonly shares: Set<string>;
  private texts: string[] | null = null;

  /**
   * @param count the rows that the gallery shows; others may follow
   * @param titles of methods, by name
   */
  constructor(
    readonly columns: Columns,
    readonly about: readonly ColumnAbout[],
    private readonly count: number,
    private readonly titles: Record<string, string> = {},
  ) {
    this.explained = Array.from({ length: count }, (_, row) => row).filter((row) => known(columns.target[row]));
    const seen = new Set<string>();
    this.twins = new Set(
      this.explained.filter((row) => {
        if (!known(columns.target_index[row])) return false;
        const key = SAME.map((name) => columns[name][row]).join("\n");
        return seen.has(key) || !seen.add(key);
      }),
    );
    this.shares = new Set(about.filter(({ unit }) => unit === "share").map(({ name }) => name));
    this.orders = (Object.entries(ORDERS) as [Order, Word][])
      .filter(([name]) => !name || this.explained.some((row) => known(columns[name][row])))
      .map(([name, word]) => [name, say(word)]);
  }

  /** What a filter offers: values, each with its name; nothing where there's no choice. */
  choices(filter: Filter): [string, string][] {
    const counts = new Map<string, number>();
    for (const row of this.explained) {
      const value = this.of(filter, row);
      if (known(value)) counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    const values = [...counts.keys()];
    switch (filter) {
      case "label":
      case "prediction":
        if (values.length < (filter === "label" ? 1 : 2)) return [];
        values.sort(new Intl.Collator().compare);
        return values.map((value) => [value, `${short(value).slice(0, 44)} (${counts.get(value)})`]);
      case "outcome":
        if (values.every((value) => value === "unknown")) return [];
        return Object.entries(OUTCOMES).map(([value, word]) => [value, say(word)]);
      case "evidence":
        if (values.every((value) => !(value in SILENCE))) return [];
        return values.map((value) => [value, value in SILENCE ? say(SILENCE[value]) : value]);
      default:
        if (values.length < 2) return [];
        return values.map((value) => [value, (filter === "method" && this.titles[value]) || value]);
    }
  }

  /** The rows that are asked for, of all or of some. */
  find(query: Query, within?: readonly number[]): number[] {
    const words = wordsOf(query.search);
    const wanted = Object.entries(query.wanted).filter(([, value]) => value) as [Filter, string][];
    const alike = this.hides(query, within) ? this.twins : null;
    const rows = (within ?? this.explained).filter(
      (row) =>
        !alike?.has(row) &&
        wanted.every(([filter, value]) => this.of(filter, row) === value) &&
        holds(words.length ? this.text(row) : "", words),
    );
    if (!query.sort) return query.descending ? rows.reverse() : rows;
    const values = this.columns[query.sort] as ArrayLike<number>;
    const sign = query.descending ? -1 : 1;
    return rows.sort(
      (a, b) =>
        Number(known(values[b])) - Number(known(values[a])) ||
        (known(values[a]) ? sign * (values[a] - values[b]) : 0) ||
        a - b,
    );
  }

  /** How many rows an unfiltered query finds, and how many more say the same. */
  tally(query: Query, within?: readonly number[]): { all: number; alike: number } {
    const alike = this.hides(query, within) ? this.twins.size : 0;
    return { all: this.explained.length - alike, alike };
  }

  target(row: number): string {
    const { target, target_index } = this.columns;
    return known(target_index[row]) ? short(target[row]) : String(target[row]);
  }

  /** How sure the model is of a target. */
  sure(row: number): string {
    const { target_probability, target_score } = this.columns;
    return known(target_probability[row]) ? percent(target_probability[row]) : plain(target_score[row]);
  }

  outcome(row: number): keyof typeof OUTCOMES {
    const correct = this.columns.correct[row];
    return known(correct) ? (correct ? "correct" : "wrong") : "unknown";
  }

  silent(row: number): boolean {
    return String(this.columns.evidence[row]) in SILENCE;
  }

  /** What stands below a heatmap's target: how the image is labelled, or what else tells it apart. */
  beneath(row: number): string {
    const { label, label_index, prediction, target_index, where, id } = this.columns;
    if (this.silent(row)) return say("noEvidence");
    const isLabel = known(target_index[row]) && target_index[row] === label_index[row];
    if (this.outcome(row) === "wrong")
      return isLabel
        ? say("predictedAs", { name: short(prediction[row]) })
        : say("labelledAs", { name: short(label[row]) });
    if (known(where[row])) return String(where[row]);
    return known(label[row]) && !isLabel ? short(label[row]) : String(id[row]).split("/").at(-1)!;
  }

  /** The value of what rows are sorted by, where it doesn't stand at a tile anyway. */
  sortedBy(order: Order, row: number): string {
    if (!order || TOLD.includes(order)) return "";
    const value = this.columns[order][row];
    return this.shares.has(order) ? percent(value, 1) : plain(value);
  }

  /** A row in one line. */
  described(row: number, caveat = ""): string {
    const { id, where, label } = this.columns;
    const parts = [say("heatmapFor", { id: String(id[row]), name: this.target(row), share: this.sure(row) })];
    if (known(where[row])) parts.push(String(where[row]));
    if (known(label[row])) parts.push(say("labelledAs", { name: short(label[row]) }));
    if (this.outcome(row) !== "unknown") parts.push(say(OUTCOMES[this.outcome(row)]));
    if (caveat) parts.push(caveat);
    return parts.join(", ");
  }

  /** What is known of a row, group by group: columns and their values in words. */
  facts(row: number): [string, Fact[]][] {
    const groups = new Map<string, Fact[]>();
    for (const { name, group, unit } of this.about) {
      const value = this.columns[name][row];
      if (!known(value)) continue;
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group)!.push({ name, text: worded(value, unit), words: typeof value === "string" });
    }
    return [...groups];
  }

  /** Rows that say the same again are left out, unless a person asks for a kind of target or for some rows. */
  private hides(query: Query, within?: readonly number[]): boolean {
    return !query.wanted.asked && !within;
  }

  private of(filter: Filter, row: number): string | null {
    return filter === "outcome" ? this.outcome(row) : (this.columns[filter][row] as string | null);
  }

  /** What of a row is searched, made at the first search. */
  private text(row: number): string {
    this.texts ??= Array.from({ length: this.count }, (_, row) =>
      SEARCHED.map((name) => this.columns[name][row] ?? "").join("\n").toLowerCase(),
    );
    return this.texts[row];
  }
}

export function worded(value: Value, unit: ColumnAbout["unit"]): string {
  if (unit === "share") return percent(value, 1);
  if (unit === "pixels") return `${Number(Number(value).toFixed(1))}\u2009px`;
  if (typeof value === "boolean") return say(value ? "yes" : "no");
  return typeof value === "number" && unit !== "number" ? plain(value) : String(value);
}
