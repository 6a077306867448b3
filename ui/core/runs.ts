// What a source can tell of runs.

import type { Answer } from "./source.ts";
import type { PictureAbout, RunAbout, RunMap, RunRows, ValueCount } from "./wire.ts";

/** Which rows, in which order: what the server's query says, by name. */
export type Wanted = Record<string, string>;

export interface Runs {
  all(): Promise<RunAbout[]>;
  rows(run: string, wanted: Wanted, offset: number, limit: number): Promise<RunRows>;
  values(run: string, column: string): Promise<ValueCount[]>;
  /** The address of a row's small picture. */
  picture(run: string, row: number): string;
  map(run: string, row: number): Promise<Answer<RunMap>>;
  open(run: string, row: number): Promise<PictureAbout>;
}
