/** What this page wrote, against what it has seen: the difference is what is missing, and must go to nothing. */

export class Tally {
  #accepted = 0;
  readonly #outstanding = new Set<string>();

  constructor(
    /** Whether an event has been seen: a push can be faster than the answer to the write. */
    readonly isSeen: (id: string) => boolean,
  ) {}

  /** Writes that were answered 201. */
  get accepted(): number {
    return this.#accepted;
  }

  /** Accepted, and seen since. */
  get seen(): number {
    return this.#accepted - this.#outstanding.size;
  }

  /** Accepted, and not seen yet. */
  get missing(): number {
    return this.#outstanding.size;
  }

  /** A write was answered 201. Written again under the same id, an event is still one event. */
  accept(id: string): void {
    if (this.#outstanding.has(id)) return;
    this.#accepted += 1;
    if (!this.isSeen(id)) this.#outstanding.add(id);
  }

  see(id: string): void {
    this.#outstanding.delete(id);
  }
}
