// The messages of hookmap.explorer.questions, whose docstrings say what each field means.

/** (left, top, right, bottom) in pixels of the picture. */
export type Box = [number, number, number, number];

export interface Muting {
  layer: string;
  numbers: number[];
  factor?: number;
  of?: "channels" | "heads";
}

export interface Question {
  model: string;
  picture: string;
  muted?: Muting[];
}

export interface Predict extends Question {
  top?: number | null;
}

export type Part = "positive" | "negative" | "signed";

export interface Explain extends Question {
  target?: string;
  versus?: string | null;
  method?: string | null;
  layer?: string | null;
  part?: Part | null;
  aug_smooth?: boolean;
  noise_smooth?: number;
  eigen_smooth?: boolean;
  rivals?: number;
  seed?: number;
  budget?: number | null;
  check?: boolean;
}

export type Stages = Question;

export interface Features extends Question {
  layer: string;
  target?: string;
}

export interface Patch extends Question {
  layer: string;
  x: number;
  y: number;
}

export interface Missed extends Question {
  box: Box;
}

export interface Stroke {
  points: [number, number][];
  width: number;
}

export interface Erase {
  picture: string;
  strokes: Stroke[];
  fill?: "blur" | "mean" | "linear";
}

export interface MethodAbout {
  name: string;
  title: string;
  summary: string;
  family: string;
  per_layer: boolean;
  signed: boolean;
  slow: boolean;
}

export interface ModelAbout {
  id: string;
  name: string;
  form: "classes" | "regions" | "detections" | "embeddings" | "other";
  labels: string[];
  texts: boolean;
  methods: MethodAbout[];
  method: string | null;
  layers: string[];
}

export interface PictureAbout {
  id: string;
  name: string;
  width: number;
  height: number;
}

export interface Seen {
  target: string;
  index: number;
  label: string;
  score: number;
  probability: number;
  box: Box | null;
  share: number | null;
}

export interface Predicted {
  predictions: Seen[];
  seen: Box;
}

export interface Believed {
  word: string;
  text: string;
  percentile: number;
  kept: number;
  score: number;
  stability: number | null;
}

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

export interface Drawn {
  array: string;
  target: string;
  title: string;
  index: number | null;
  score: number;
  probability: number | null;
  where: string;
  box: Box | null;
  number: number | null;
  method: string;
  method_title: string;
  layer: string;
  evidence: "none" | "faint" | "even" | "some";
  caveat: string;
  coverage: number | null;
  look: Look;
  area: Box;
  why: string;
  python: string;
  command: string;
  believed: Believed | null;
}

export interface Explained {
  heatmaps: Drawn[];
  remarks: string[];
}

export interface Stage {
  array: string;
  layer: string;
  kind: string;
  channels: number;
  rows: number;
  columns: number;
  default: boolean;
}

export interface Staged {
  stages: Stage[];
  area: Box;
  layers: string[];
}

export type Order = "mean" | "variance" | "influence";

export interface Channels {
  layer: string;
  kind: string;
  count: number;
  numbers: number[];
  area: Box;
  orders: Partial<Record<Order, number[]>>;
  low: number;
  high: number;
}

export interface Fires {
  number: number;
  value: number;
  deviations: number;
}

export interface Patched {
  cell: [number, number];
  patch: Box;
  field: Box | null;
  channels: Fires[];
  alike: Drawn;
  heads: string[];
  area: Box | null;
}

export interface Candidate {
  label: string;
  box: Box;
  probability: number;
  overlap: number;
  target: string;
}

export interface Missing {
  died: "detected" | "confidence" | "suppression" | "nowhere";
  sentence: string;
  candidate: Candidate | null;
  winner: Candidate | null;
}

export interface Problem {
  error: string;
  kind: string;
}

export interface Progress {
  what: string;
  done: number;
  total: number;
}

export interface JobAbout {
  id: string;
  key: string;
  state: "waiting" | "running" | "done" | "failed" | "cancelled";
  progress: Progress;
  problem: Problem | null;
}

/** What each kind of question asks, and what it is told. */
export interface Exchange {
  predict: { question: Predict; about: Predicted };
  explain: { question: Explain; about: Explained };
  stages: { question: Stages; about: Staged };
  features: { question: Features; about: Channels };
  patch: { question: Patch; about: Patched };
  missed: { question: Missed; about: Missing };
}

export type Kind = keyof Exchange;
