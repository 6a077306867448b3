// Where answers come from: a server, a file, or a notebook's kernel. What a source can't do, it hasn't.

import type { Runs } from "./runs.ts";
import type { Tensor } from "./safetensors.ts";
import type { About, Decided, Erase, Exchange, Explain, Kind, Look, ModelAbout, PictureAbout, Progress } from "./wire.ts";

export interface Answer<About> {
  about: About;
  arrays: Record<string, Tensor>;
}

export interface Asking {
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

export type Form = "png" | "svg" | "pdf" | "npz";

/** A question with its kind. */
export type Asked = { [K in Kind]: { kind: K; question: Exchange[K]["question"] } }[Kind];

export interface Source {
  about(): Promise<About>;
  models(): Promise<ModelAbout[]>;
  /** Pictures that are there from the beginning. */
  samples(): Promise<PictureAbout[]>;
  /** The address of a picture, its longer side about as asked; the caller doesn't revoke it. */
  picture(id: string, longer: number): Promise<string>;
  /** @throws Refused, or an AbortError when the signal says so */
  ask<K extends Kind>(kind: K, question: Exchange[K]["question"], asking?: Asking): Promise<Answer<Exchange[K]["about"]>>;
  /** Whether a question can be answered; a source without this answers any. */
  knows?(kind: Kind, question: object): boolean;
  upload?(data: Blob, name: string): Promise<PictureAbout>;
  erase?(erase: Erase): Promise<PictureAbout>;
  export?(question: Explain, form: Form, look: Look): Promise<{ data: Blob; name: string }>;
  readonly runs?: Runs;
  /** Which method and layer to take for a model, on the photos that were opened; who aborts it can go on later. */
  decide?(model: string, asking: Asking): Promise<Decided>;
  /** The same as one page, once it was found. */
  decidedPage?(model: string): Promise<Blob>;
  /** What is on the screen as one file that stays interactive. */
  view?(state: object, questions: Asked[]): Promise<Blob>;
}

/** What was wrong with a question, in a sentence for people. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly kind = "error",
  ) {
    super(message);
  }
}

/** The same text for the same question, whatever the order of its fields; what is null, 0 or missing is the default. */
export function canonical(kind: Kind, question: object): string {
  const plain = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value !== "object" || value === null) return value;
    const fields = Object.entries(value).filter(([, one]) => one !== null && one !== undefined && !empty(one));
    return Object.fromEntries(fields.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, one]) => [name, plain(one)]));
  };
  return `${kind} ${JSON.stringify(plain(question))}`;
}

const empty = (value: unknown) => value === false || value === 0 || (Array.isArray(value) && value.length === 0);
