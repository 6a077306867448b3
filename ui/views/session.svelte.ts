// What all views share: the source, what it offers, and the state that a person changes.

import { getContext, onDestroy, setContext, untrack } from "svelte";
import { Painter } from "../core/draw/index.ts";
import { type Answer, canonical, Refused, type Source } from "../core/source.ts";
import { decode, encode, START, type State } from "../core/state.ts";
import { say } from "../core/strings.ts";
import { Comparison } from "./comparison.svelte.ts";
import type {
  Exchange,
  Explain,
  Features,
  Kind,
  MethodAbout,
  ModelAbout,
  Muting,
  PictureAbout,
  Problem,
  Progress,
  Question,
  RunAbout,
} from "../core/wire.ts";

const KEY = Symbol("session");
/** Fields whose changes are steps that the browser's back button undoes. */
const STEPS: (keyof State)[] = ["model", "picture", "target", "versus", "method", "layer", "muted", "open", "run"];

export type Tool = "move" | "inspect" | "point" | "box" | "region" | "missed" | "erase";

type Wanted = Partial<Pick<State, "target" | "versus" | "method" | "layer">>;

export class Session {
  state = $state<State>(structuredClone(START));
  tool = $state<Tool>("move");
  models = $state.raw<ModelAbout[]>([]);
  pictures = $state.raw<PictureAbout[]>([]);
  runs = $state.raw<RunAbout[]>([]);
  /** How many photos were opened that methods can be compared on. */
  photos = $state(0);
  /** What a person is told; the last first. */
  said = $state<{ text: string; wrong: boolean } | null>(null);
  /** A channel that is shown over the photo for now, instead of the heatmap. */
  hovered = $state<number | null>(null);
  /** Counts how often all has to be painted anew. */
  painted = $state(0);
  readonly painter: Painter;
  readonly comparison: Comparison;
  #first = START;

  readonly model = $derived(this.models.find(({ id }) => id === this.state.model) ?? this.models[0]);
  readonly picture = $derived(this.pictures.find(({ id }) => id === this.state.picture));
  readonly method = $derived(this.methodOf(this.state.method || this.model?.method));
  /** The layer at which heatmaps are taken, and the one whose feature maps and places are looked at. */
  readonly at = $derived(this.state.layer || this.model?.layers.at(-1) || "");
  readonly layer = $derived(this.state.open || this.at);

  constructor(readonly source: Source) {
    this.painter = new Painter(() => this.painted++);
    this.comparison = new Comparison(source);
  }

  /** Begin with what a link or a saved view says. */
  async start(state: State): Promise<void> {
    const [about, models, samples, runs] = await Promise.all([
      this.source.about(),
      this.source.models(),
      this.source.samples(),
      this.source.runs?.all() ?? [],
    ]);
    this.photos = about.photos;
    this.runs = runs;
    this.models = models;
    this.pictures = samples;
    this.restore(state);
    this.#first = $state.snapshot(this.state);
  }

  restore(state: State): void {
    const model = this.models.find(({ id }) => id === state.model) ?? this.models[0];
    const known = state.picture && !this.pictures.some(({ id }) => id === state.picture);
    if (known) this.say(say("gone"));
    const picture = this.pictures.find(({ id }) => id === state.picture) ?? this.pictures[0];
    this.state = { ...state, model: model?.id ?? "", picture: picture?.id ?? "" };
  }

  methodOf(name?: string | null): MethodAbout | undefined {
    return this.model?.methods.find((one) => one.name === name);
  }

  /** Whether another model's classes are those of this one. */
  sameClasses(id: string): boolean {
    const labels = this.models.find((one) => one.id === id)?.labels ?? [];
    return labels.length > 0 && labels.join("\n") === this.model?.labels.join("\n");
  }

  base(): Question {
    return { model: this.state.model, picture: this.state.picture, muted: $state.snapshot(this.state.muted) };
  }

  /** Whether there is anything to explain yet: some models are first asked for a text, or pointed at something. */
  get asks(): boolean {
    return !["embeddings", "masks"].includes(this.model?.form ?? "") || this.state.target !== "predicted";
  }

  /** The question that the heatmap answers. */
  explain(changes: Partial<Explain> = {}): Explain {
    const { target, versus, method, layer, aug_smooth, noise_smooth, eigen_smooth } = this.state;
    // Of all detections the strongest: a heatmap for each would take long and be many.
    const first = target === "predicted" && this.model?.form === "detections" ? "box:0" : target;
    const asked = { target: first, versus: versus || null, method: method || null, layer: layer || null };
    return { ...this.base(), ...asked, aug_smooth, noise_smooth, eigen_smooth, ...changes };
  }

  /** Whether the source answers any question, and not only what was saved. */
  get free(): boolean {
    return this.source.knows === undefined;
  }

  knows<K extends Kind>(kind: K, question: Exchange[K]["question"]): boolean {
    return this.source.knows?.(kind, question) ?? true;
  }

  /**
   * What is to be set so that a heatmap with some changes is shown: of a saved view, which doesn't hold all combinations,
   * other settings give way; null where that doesn't help.
   */
  reach(changes: Wanted): Wanted | null {
    const { target } = this.#first;
    const ways: Wanted[] = [{}, { versus: "" }, { layer: "" }, { layer: "", method: "" }, { target, versus: "" }];
    const question = (wanted: Wanted) =>
      this.explain(Object.fromEntries(Object.entries(wanted).map(([name, value]) => [name, value || null])));
    const wanted = ways.map((way) => ({ ...way, ...changes }));
    return wanted.find((one) => this.knows("explain", question(one))) ?? null;
  }

  /** The question for a layer's feature maps; a saved view has them sorted for the target that it began with. */
  features(layer: string): Features {
    const question = { ...this.base(), layer, target: this.state.target };
    return this.knows("features", question) ? question : { ...question, target: this.#first.target };
  }

  /** What a channel or a concept is multiplied with; 1 where nothing was changed. */
  factorOf(of: Muting["of"], layer: string, number: number): number {
    return this.state.muted.find(isMuting(of, layer, number))?.factor ?? 1;
  }

  mute(of: Muting["of"], layer: string, number: number, factor: number): void {
    const same = isMuting(of, layer, number);
    const others = this.state.muted.filter((one) => !same(one));
    this.state.muted = factor === 1 ? others : [...others, { layer, numbers: [number], factor, of }];
  }

  /** Look at another picture; what was asked of places on the last one is over. */
  show(picture: PictureAbout): void {
    if (!this.pictures.some(({ id }) => id === picture.id)) this.pictures = [...this.pictures, picture];
    const { target } = this.state;
    Object.assign(this.state, {
      picture: picture.id,
      muted: this.state.muted.filter(({ of }) => of !== "concepts"), // they are those of a picture
      target: /^(box|point|polygon):/.test(target) ? START.target : target,
      zoom: { ...START.zoom },
      place: null,
      missed: null,
    });
  }

  use(model: string): void {
    const { picture, look, panel } = this.state;
    this.state = { ...structuredClone(START), picture, look: $state.snapshot(look), panel, model };
  }

  tell(error: unknown): void {
    if (!isAbort(error)) this.said = { text: error instanceof Error ? error.message : String(error), wrong: true };
  }

  say(text: string): void {
    this.said = { text, wrong: false };
  }
}

const isMuting = (of: Muting["of"], layer: string, number: number) => (one: Muting) =>
  (one.of ?? "channels") === of && one.layer === layer && one.numbers[0] === number;

/** What of a question is another for what stands beside it; a model's own method and layer may not be another's. */
export const changeTo = (by: State["by"], id: string): Partial<Explain> =>
  by === "model" ? { model: id, method: null, layer: null } : { [by]: id };

export const isAbort = (error: unknown) => error instanceof DOMException && error.name === "AbortError";

export const provide = (session: Session) => setContext(KEY, session);
export const useSession = (): Session => getContext(KEY);

/** An answer that follows its question: a new one takes the place of the last, which stays until then. */
export class Inquiry<K extends Kind> {
  answer = $state.raw<Answer<Exchange[K]["about"]> | null>(null);
  /** The question of the answer. */
  question = $state.raw<Exchange[K]["question"] | null>(null);
  progress = $state.raw<Progress | null>(null);
  problem = $state.raw<Problem | null>(null);
  pending = $state(false);

  constructor(source: Source, kind: K, question: () => Exchange[K]["question"] | null) {
    let key = "";
    let controller: AbortController | undefined;
    $effect(() => {
      const asked = question();
      const next = asked ? canonical(kind, asked) : "";
      untrack(() => {
        if (next === key) return;
        key = next;
        controller?.abort();
        controller = asked ? new AbortController() : undefined;
        if (asked) void this.ask(source, kind, asked, controller!.signal);
        else Object.assign(this, { answer: null, question: null, progress: null, problem: null, pending: false });
      });
    });
    onDestroy(() => controller?.abort());
  }

  private async ask(source: Source, kind: K, question: Exchange[K]["question"], signal: AbortSignal): Promise<void> {
    this.pending = true;
    this.progress = null;
    const onProgress = (progress: Progress) => {
      if (!signal.aborted) this.progress = progress;
    };
    try {
      const answer = await source.ask(kind, question, { signal, onProgress });
      if (!signal.aborted) Object.assign(this, { answer, question, problem: null });
    } catch (error) {
      if (signal.aborted || isAbort(error)) return;
      const kind = error instanceof Refused ? error.kind : "error";
      Object.assign(this, { answer: null, question, problem: { error: (error as Error).message, kind } });
    } finally {
      if (!signal.aborted) Object.assign(this, { pending: false, progress: null });
    }
  }
}

/** Keep the address and the state the same. */
export function linked(session: Session): void {
  if (location.protocol === "about:") return; // a notebook's frame has no address of its own
  let last = "";
  let step = "";
  let timer = 0;
  $effect(() => {
    const link = `#${encode(session.state)}`;
    const now = STEPS.map((name) => JSON.stringify(session.state[name])).join();
    if (!session.models.length || link === last) return;
    const push = step !== "" && now !== step;
    [last, step] = [link, now];
    clearTimeout(timer);
    if (push) history.pushState(null, "", link);
    else timer = window.setTimeout(() => history.replaceState(null, "", link), 200); // browsers count them
  });
  const back = () => {
    if (location.hash === last) return;
    last = location.hash;
    session.restore(decode(location.hash));
    step = STEPS.map((name) => JSON.stringify(session.state[name])).join();
  };
  window.addEventListener("popstate", back);
  onDestroy(() => window.removeEventListener("popstate", back));
}
