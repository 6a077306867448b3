// The messages of hookmap.explorer.questions, whose docstrings say what each field means; schema.ts is written from them
// by `python make_openapi.py && npm run schema`.

import type { components } from "./schema.ts";

type Messages = components["schemas"];

export type Muting = Messages["Muting"];
/** What all questions say. */
export type Question = Messages["Stages"];
export type Predict = Messages["Predict"];
export type Explain = Messages["Explain"];
export type Stages = Messages["Stages"];
export type Features = Messages["Features"];
export type Patch = Messages["Patch"];
export type Nearest = Messages["Nearest"];
export type Missed = Messages["Missed"];
export type Stroke = Messages["Stroke"];
export type Erase = Messages["Erase"];
export type MethodAbout = Messages["MethodAbout"];
export type ModelAbout = Messages["ModelAbout"];
export type PictureAbout = Messages["PictureAbout"];
export type Seen = Messages["Seen"];
export type Predicted = Messages["Predicted"];
export type Believed = Messages["Believed"];
export type Stage = Messages["Stage"];
export type Staged = Messages["Staged"];
export type Channels = Messages["Channels"];
export type Concepts = Messages["Concepts"];
export type Conceived = Messages["Conceived"];
export type Fires = Messages["Fires"];
export type Neighbours = Messages["Neighbours"];
export type Candidate = Messages["Candidate"];
export type Missing = Messages["Missing"];
export type Problem = Messages["Problem"];
export type Progress = Messages["Progress"];
export type JobAbout = Messages["JobAbout"];
export type About = Messages["About"];
export type Compared = Messages["Compared"];
export type Decided = Messages["Decided"];
export type RunAbout = Messages["RunAbout"];
export type RunRow = Messages["RunRow"];
export type RunRows = Messages["RunRows"];
export type ValueCount = Messages["ValueCount"];

/** (left, top, right, bottom) in pixels of the picture. */
export type Box = Missed["box"];
export type Part = "positive" | "negative" | "signed";
export type Order = "mean" | "variance" | "influence";

/** How a heatmap is drawn: hookmap.Look as JSON. */
export interface Look {
  part: Part;
  scale: "max" | "minmax" | "symmetric";
  limit: number | null;
  outliers: number;
  colormap: string;
  opacity: number | "ramp";
  threshold: number;
  grey: boolean;
  ends: [string, string];
}

type Looked<Message, Field extends keyof Message, As> = Omit<Message, Field> & { [name in Field]: As };
export type Drawn = Looked<Messages["Drawn"], "look", Look>;
export type Explained = Looked<Messages["Explained"], "heatmaps", Drawn[]>;
export type RunMap = Looked<Messages["RunMap"], "look", Look>;
export type Patched = Looked<Messages["Patched"], "alike", Drawn>;

/** What each kind of question asks, and what it is told. */
export interface Exchange {
  predict: { question: Predict; about: Predicted };
  explain: { question: Explain; about: Explained };
  stages: { question: Stages; about: Staged };
  features: { question: Features; about: Channels };
  concepts: { question: Concepts; about: Conceived };
  patch: { question: Patch; about: Patched };
  nearest: { question: Nearest; about: Neighbours };
  missed: { question: Missed; about: Missing };
}

export type Kind = keyof Exchange;
