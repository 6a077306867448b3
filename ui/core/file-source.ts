import { decoded } from "./decoding.ts";
import { type Answer, type Asked, canonical, Refused, type Source } from "./source.ts";
import type { About, Exchange, Kind, ModelAbout, PictureAbout } from "./wire.ts";

/** What a saved view holds, as JSON in its page. */
export interface SavedView {
  about: About;
  models: ModelAbout[];
  pictures: (PictureAbout & { address: string })[];
  /** Each question with its answer, safetensors in base64. */
  answers: (Asked & { answer: string })[];
  /** As of state.ts. */
  state: object;
}

/** Answers what was asked before the view was saved. */
export class FileSource implements Source {
  private answers: Map<string, string>;

  constructor(private saved: SavedView) {
    this.answers = new Map(saved.answers.map(({ kind, question, answer }) => [canonical(kind, question), answer]));
  }

  about = async () => this.saved.about;
  models = async () => this.saved.models;
  samples = async (): Promise<PictureAbout[]> => this.saved.pictures;

  async picture(id: string): Promise<string> {
    const found = this.saved.pictures.find((one) => one.id === id);
    if (!found) throw new Refused("this picture isn't part of the saved view", "unsaved");
    return found.address;
  }

  knows(kind: Kind, question: object): boolean {
    return this.answers.has(canonical(kind, question));
  }

  async ask<K extends Kind>(kind: K, question: Exchange[K]["question"]): Promise<Answer<Exchange[K]["about"]>> {
    const coded = this.answers.get(canonical(kind, question));
    if (coded === undefined) throw new Refused("this answer isn't part of the saved view", "unsaved");
    return decoded(Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0)).buffer);
  }
}
