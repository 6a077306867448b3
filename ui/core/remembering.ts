import { type Answer, canonical, type Source } from "./source.ts";
import type { Kind } from "./wire.ts";

const MOST = 96;

/** A source that remembers its last answers, so that going back costs nothing. */
export function remembering(source: Source): Source {
  const kept = new Map<string, Answer<never>>();
  return Object.assign(Object.create(source) as Source, {
    async ask(kind: Kind, question: never, asking?: object) {
      const key = canonical(kind, question);
      const answer = kept.get(key) ?? (await source.ask(kind, question, asking));
      kept.delete(key); // the last used is the last to go
      kept.set(key, answer as Answer<never>);
      if (kept.size > MOST) kept.delete(kept.keys().next().value!);
      return answer;
    },
  });
}
