/**
 * The Idempotency-Key of something a person does: the same for the same contents, so that a press
 * that is repeated after a lost answer does it once; another for other contents. Pure.
 */
export class Once {
  /** @param {() => string} newKey */
  constructor(newKey) {
    this.newKey = newKey;
    /** @type {string | null} */
    this.text = null;
    this.last = "";
  }

  /** @param {unknown} body */
  key(body) {
    const text = JSON.stringify(body);
    if (text !== this.text) {
      this.text = text;
      this.last = this.newKey();
    }
    return this.last;
  }

  /** It is done: the same again would be a second time. */
  done() {
    this.text = null;
  }
}
