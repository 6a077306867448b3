// A list that is shown so many at a time.

export class Pages<T> {
  readonly count = $derived.by(() => Math.max(1, Math.ceil(this.list().length / this.per)));
  readonly shown = $derived.by(() => this.list().slice(this.at * this.per, (this.at + 1) * this.per));
  /** Back to the first when the list changes. */
  private at = $derived.by(() => (this.list(), 0));

  constructor(
    private readonly list: () => readonly T[],
    readonly per: number,
  ) {}

  get page(): number {
    return this.at;
  }

  go(page: number): void {
    this.at = Math.min(Math.max(0, page), this.count - 1);
  }
}
