import { decoded } from "./decoding.ts";
import type { Runs } from "./runs.ts";
import { type Answer, type Asked, type Asking, type Form, Refused, type Source } from "./source.ts";
import type { About, Decided, Erase, Exchange, Explain, JobAbout, Kind, Look, ModelAbout, PictureAbout, Problem } from "./wire.ts";

type Decode = <T>(bytes: ArrayBuffer) => Promise<Answer<T>>;

/** Asks the server that the page came from, which knows by a cookie whom it answers. */
export class ServerSource implements Source {
  constructor(
    private root = "api",
    private decode: Decode = async (bytes) => decoded(bytes),
  ) {}

  about = () => this.json<About>("about");
  models = () => this.json<ModelAbout[]>("models");
  samples = () => this.json<PictureAbout[]>("samples");

  readonly runs: Runs = {
    all: () => this.json("runs"),
    rows: (run, wanted, offset, limit) =>
      this.json(`${of(run)}/rows`, {}, { ...wanted, offset: String(offset), limit: String(limit) }),
    values: (run, column) => this.json(`${of(run)}/values`, {}, { column }),
    picture: (run, row) => this.address(`${of(run)}/pictures/${row}`),
    map: async (run, row) => this.decode(await (await this.fetch(`${of(run)}/maps/${row}`)).arrayBuffer()),
    open: (run, row) => this.json(`${of(run)}/open/${row}`, { method: "POST" }),
  };

  async picture(id: string, longer: number): Promise<string> {
    return this.address(`pictures/${encodeURIComponent(id)}`, { longer: String(longer) });
  }

  upload(data: Blob, name: string): Promise<PictureAbout> {
    return this.json<PictureAbout>("pictures", { method: "POST", body: data }, { name });
  }

  erase(erase: Erase): Promise<PictureAbout> {
    return this.json<PictureAbout>("erased", posted(erase));
  }

  async export(question: Explain, form: Form, look: Look): Promise<{ data: Blob; name: string }> {
    const answer = await this.finished(await this.fetch("export", posted({ question, look }), { form }));
    const said = /filename\*?=(?:UTF-8'')?"?([^";]+)/i.exec(answer.headers.get("content-disposition") ?? "");
    return { data: await answer.blob(), name: said ? decodeURIComponent(said[1]) : `heatmap.${form}` };
  }

  async view(state: object, questions: Asked[]): Promise<Blob> {
    return (await this.fetch("view", posted({ state, questions }))).blob();
  }

  async decide(model: string, { signal, onProgress }: Asking): Promise<Decided> {
    const first = await this.fetch("verdict", { ...posted({ model }), signal }, { wait: "0.4" });
    this.cancelling(first, signal);
    return (await this.finished(first, { signal, onProgress })).json() as Promise<Decided>;
  }

  async decidedPage(model: string): Promise<Blob> {
    return (await this.finished(await this.fetch("verdict/page", posted({ model })))).blob();
  }

  async ask<K extends Kind>(
    kind: K,
    question: Exchange[K]["question"],
    { signal, onProgress }: Asking = {},
  ): Promise<Answer<Exchange[K]["about"]>> {
    // Who waits long wants to see how far it is, so the first wait is short.
    const first = await this.fetch(kind, { ...posted(question), signal }, { wait: onProgress ? "0.4" : "30" });
    if (kind === "nearest") this.cancelling(first, signal); // it takes long, and others wait behind it
    return this.decode(await (await this.finished(first, { signal, onProgress })).arrayBuffer());
  }

  /** Who no longer wants a job's answer cancels it at once. */
  private cancelling(first: Response, signal?: AbortSignal): void {
    const job = first.headers.get("location")?.replace(/^.*\/jobs\//, "jobs/");
    if (job) signal?.addEventListener("abort", () => void this.fetch(job, { method: "DELETE" }).catch(() => {}));
  }

  /** An answer, waited for where it isn't there yet; who no longer follows a job has cancelled it. */
  private async finished(first: Response, { signal, onProgress }: Asking = {}): Promise<Response> {
    if (first.status !== 202) return first;
    const job = (await first.json()) as JobAbout;
    const events = new EventSource(this.address(`jobs/${encodeURIComponent(job.id)}/events`));
    try {
      const done = await new Promise<JobAbout>((resolve, reject) => {
        const gone = () => reject(signal!.reason);
        if (signal?.aborted) gone();
        signal?.addEventListener("abort", gone, { once: true });
        events.onmessage = ({ data }: MessageEvent<string>) => {
          const now = JSON.parse(data) as JobAbout;
          if (now.state === "done") resolve(now);
          else if (now.state === "failed") reject(new Refused(now.problem!.error, now.problem!.kind));
          else if (now.state === "cancelled") reject(new DOMException("The job was cancelled", "AbortError"));
          else onProgress?.(now.progress);
        };
        events.onerror = () => {
          if (events.readyState === EventSource.CLOSED) reject(new Refused("the server doesn't know this job any more"));
        };
      });
      return await this.fetch(`answers/${encodeURIComponent(done.key)}`, { signal });
    } finally {
      events.close();
    }
  }

  private address(path: string, query: Record<string, string> = {}): string {
    const search = new URLSearchParams(query).toString();
    return `${this.root}/${path}${search && `?${search}`}`;
  }

  private async json<T>(path: string, init?: RequestInit, query?: Record<string, string>): Promise<T> {
    return (await this.fetch(path, init, query)).json() as Promise<T>;
  }

  private async fetch(path: string, init?: RequestInit, query?: Record<string, string>): Promise<Response> {
    let answer: Response;
    try {
      answer = await fetch(this.address(path, query), init);
    } catch (error) {
      if (init?.signal?.aborted) throw init.signal.reason;
      throw new Refused("the server can't be reached", "unreachable");
    }
    if (answer.ok) return answer;
    const problem = (await answer.json().catch(() => null)) as Problem | null;
    throw new Refused(problem?.error ?? `the server said ${answer.status} ${answer.statusText}`, problem?.kind);
  }
}

const of = (run: string) => `runs/${encodeURIComponent(run)}`;

const posted = (body: object): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
});

/** Decodes answers beside the page's own thread, so that large ones don't hold it up. */
export function decoder(worker: Worker): Decode {
  type Waiting = { resolve: (answer: Answer<never>) => void; reject: (error: Error) => void };
  const waiting = new Map<number, Waiting>();
  let last = 0;
  worker.onmessage = ({ data: { number, answer, error } }) => {
    const { resolve, reject } = waiting.get(number)!;
    waiting.delete(number);
    if (error) reject(new Error(error));
    else resolve(answer);
  };
  return (bytes) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve: resolve as Waiting["resolve"], reject });
      worker.postMessage({ number: last, bytes }, [bytes]);
    });
}
