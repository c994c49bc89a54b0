/**
 * A refusal, whether it came over the wire, over HTTP or from the page itself.
 *
 * Responsible for one shape: a stable code, the server's English sentence, details and when trying
 * again can help. The sentence that people read is made by `i18n.js`.
 */

/** Codes made by this page, never by the server. */
export const PAGE_CODES = Object.freeze(["offline", "connection_lost", "unknown"]);

/** Codes for which the same request may succeed later (live/codes.py, "temporary"). */
export const TEMPORARY = Object.freeze(
  new Set([
    "rate_limited",
    "busy",
    "unavailable",
    "internal",
    "drop_not_open",
    "payment_open",
    "key_in_progress",
    "offline",
    "connection_lost",
  ]),
);

export class Refusal extends Error {
  /**
   * @param {string} code
   * @param {string} [message] English; shown only when the code is not known
   * @param {{retryAfterMs?: number | null, details?: Record<string, unknown>, status?: number}} [more]
   */
  constructor(code, message = code, more = {}) {
    super(message);
    this.code = code;
    this.retryAfterMs = more.retryAfterMs ?? null;
    this.details = more.details ?? {};
    this.status = more.status ?? 0;
  }

  /** The same request may succeed later. */
  get temporary() {
    return TEMPORARY.has(this.code);
  }

  /**
   * From the body of kind 1, or of a problem document.
   * @param {any} body
   * @param {number} [status]
   */
  static of(body, status = 0) {
    const code = typeof body?.code === "string" ? body.code : "unknown";
    const message = body?.message ?? body?.detail ?? body?.title ?? code;
    return new Refusal(code, String(message), {
      retryAfterMs: typeof body?.retry_after_ms === "number" ? body.retry_after_ms : null,
      details: typeof body?.details === "object" && body.details !== null ? body.details : {},
      status,
    });
  }
}
