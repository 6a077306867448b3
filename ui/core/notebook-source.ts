import { decoded } from "./decoding.ts";
import { type Answer, type Asked, type Asking, type Form, Refused, type Source } from "./source.ts";
import type { About, Erase, Exchange, Explain, Kind, Look, ModelAbout, PictureAbout, Problem, Progress } from "./wire.ts";

/** A message of the kernel; see hookmap.explorer.widget. */
export interface Heard {
  content: { id: number; told?: unknown; problem?: Problem; progress?: Progress };
  buffers: Uint8Array<ArrayBuffer>[];
}

/** A question to the kernel. */
export interface Said {
  content: { id: number; ask: string } & Record<string, unknown>;
  buffers: ArrayBuffer[];
}

interface Waiting {
  resolve: (heard: Heard) => void;
  reject: (error: Error) => void;
  onProgress?: (progress: Progress) => void;
}

/** Asks a notebook's kernel through a port to the widget, one question after the other. */
export class NotebookSource implements Source {
  private waiting = new Map<number, Waiting>();
  private pictures = new Map<string, Promise<string>>();
  private last = 0;

  constructor(private port: MessagePort) {
    port.onmessage = ({ data }: MessageEvent<Heard>) => this.hear(data);
  }

  about = () => this.told<About>("about");
  models = () => this.told<ModelAbout[]>("models");
  samples = () => this.told<PictureAbout[]>("samples");

  picture(id: string, longer: number): Promise<string> {
    const key = `${id} ${longer}`;
    const known = this.pictures.get(key) ?? this.file("picture", { picture: id, longer }).then(URL.createObjectURL);
    this.pictures.set(key, known);
    return known;
  }

  async upload(data: Blob, name: string): Promise<PictureAbout> {
    return (await this.say("upload", { name }, {}, [await data.arrayBuffer()])).content.told as PictureAbout;
  }

  erase = (erase: Erase) => this.told<PictureAbout>("erase", { erase });

  async export(question: Explain, form: Form, look: Look): Promise<{ data: Blob; name: string }> {
    const { content, buffers } = await this.say("export", { question, form, look });
    const { media, name } = content.told as { media: string; name: string };
    return { data: new Blob(buffers, { type: media }), name };
  }

  view = (state: object, questions: Asked[]) => this.file("view", { state, questions });

  async ask<K extends Kind>(
    kind: K,
    question: Exchange[K]["question"],
    asking: Asking = {},
  ): Promise<Answer<Exchange[K]["about"]>> {
    const { buffers } = await this.say(kind, { question }, asking);
    const bytes = buffers[0];
    return decoded(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  }

  private async told<T>(ask: string, more: Record<string, unknown> = {}): Promise<T> {
    return (await this.say(ask, more)).content.told as T;
  }

  private async file(ask: string, more: Record<string, unknown>): Promise<Blob> {
    const { content, buffers } = await this.say(ask, more);
    return new Blob(buffers, { type: (content.told as { media: string }).media });
  }

  // Bound to this object, whoever stands before it: there is one count of the questions.
  private say = (
    ask: string,
    more: Record<string, unknown>,
    { signal, onProgress }: Asking = {},
    buffers: ArrayBuffer[] = [],
  ): Promise<Heard> => {
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onProgress });
      // The kernel can't be interrupted from here: who no longer waits isn't told.
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      this.port.postMessage({ content: { ...more, id, ask }, buffers } satisfies Said);
    });
  };

  private hear(heard: Heard): void {
    const { id, problem, progress } = heard.content;
    const waiting = this.waiting.get(id);
    if (progress) return waiting?.onProgress?.(progress);
    this.waiting.delete(id);
    if (problem) waiting?.reject(new Refused(problem.error, problem.kind));
    else waiting?.resolve(heard);
  }
}
