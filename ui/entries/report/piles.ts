// Many small texts in chunks, which lie in the page or in scripts beside it: see report/piles.py.

/** Chunks kept at a time, of those that lie beside the page. */
const MOST = 128;

export interface PileAbout {
  /** Texts of a chunk. */
  perChunk: number;
  /** Of the chunks that lie beside the page, in `folder`. */
  files: string[] | null;
  folder: string;
}

type Arrived = (pile: string, chunk: number, texts: string) => void;
declare global {
  interface Window {
    hookmapChunk: Arrived;
  }
}

const all = new Map<string, Pile>();
window.hookmapChunk = (pile, chunk, texts) => all.get(pile)!.arrive(chunk, texts);

export class Pile {
  private chunks = new Map<number, string[]>();
  private waiting = new Map<number, Promise<string[]>>();
  private arrived = new Map<number, (texts: string[]) => void>();

  constructor(
    private name: string,
    private about: PileAbout,
  ) {
    all.set(name, this);
  }

  async get(number: number): Promise<string> {
    const { perChunk, files } = this.about;
    const chunk = Math.floor(number / perChunk);
    const texts = this.chunks.get(chunk) ?? (await this.load(chunk));
    this.chunks.delete(chunk); // the last used is the last to go
    this.chunks.set(chunk, texts);
    if (files && this.chunks.size > MOST) this.chunks.delete(this.chunks.keys().next().value!);
    return texts[number - chunk * perChunk];
  }

  arrive(chunk: number, texts: string): void {
    this.arrived.get(chunk)?.(texts.split(","));
  }

  private load(chunk: number): Promise<string[]> {
    if (!this.waiting.has(chunk)) {
      const { files } = this.about;
      this.waiting.set(chunk, files ? this.beside(chunk, files[chunk]) : Promise.resolve(this.inside(chunk)));
    }
    return this.waiting.get(chunk)!.finally(() => this.waiting.delete(chunk));
  }

  private inside(chunk: number): string[] {
    const block = document.querySelector(`script[data-pile="${this.name}"][data-chunk="${chunk}"]`);
    return block!.textContent!.split(",");
  }

  private beside(chunk: number, file: string): Promise<string[]> {
    const { folder } = this.about;
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      this.arrived.set(chunk, resolve);
      script.onload = () => script.remove();
      script.onerror = () => reject(new Error(`${folder}/${file} isn't beside this page`));
      script.src = `${encodeURIComponent(folder)}/${file}`;
      document.head.append(script);
    });
  }
}
