// Which method and layer to take for a model: asked by a person, and going on while they look elsewhere.

import type { Source } from "../core/source.ts";
import { Refused } from "../core/source.ts";
import type { Decided, Problem, Progress } from "../core/wire.ts";

/** How it stands with one model. */
interface Standing {
  decided?: Decided;
  progress?: Progress;
  problem?: Problem;
  controller?: AbortController;
}

export class Comparison {
  private standings = $state.raw<Record<string, Standing>>({});

  constructor(private source: Source) {}

  of(model: string): Standing {
    return this.standings[model] ?? {};
  }

  async start(model: string): Promise<void> {
    const controller = new AbortController();
    this.set(model, { controller });
    const onProgress = (progress: Progress) => {
      if (!controller.signal.aborted) this.set(model, { controller, progress });
    };
    try {
      this.set(model, { decided: await this.source.decide!(model, { signal: controller.signal, onProgress }) });
    } catch (error) {
      if (controller.signal.aborted) return;
      const stopped = error instanceof DOMException && error.name === "AbortError";
      const kind = error instanceof Refused ? error.kind : "error";
      this.set(model, stopped ? {} : { problem: { error: (error as Error).message, kind } });
    }
  }

  stop(model: string): void {
    this.of(model).controller?.abort();
    this.set(model, {});
  }

  private set(model: string, standing: Standing): void {
    this.standings = { ...this.standings, [model]: standing };
  }
}
