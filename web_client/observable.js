/**
 * One value that views can look at: get, change, subscribe. Nothing else.
 *
 * Views select a part and are drawn again only when that part is another value (by identity), which
 * is why everything in here is replaced and never changed in place.
 */

import { useEffect, useState } from "./vendor/preact-htm/standalone.module.js";

/** @template {object} T */
export class Observable {
  /** @param {T} value */
  constructor(value) {
    this.value = value;
    /** @type {Set<() => void>} */
    this.listeners = new Set();
  }

  /** @param {Partial<T> | ((value: T) => Partial<T>)} change */
  change(change) {
    const changed = typeof change === "function" ? change(this.value) : change;
    this.value = { ...this.value, ...changed };
    for (const listener of [...this.listeners]) listener();
  }

  /** @param {() => void} listener */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/**
 * A part of an observable, in a view.
 * @template {object} T
 * @template R
 * @param {Observable<T>} observable
 * @param {(value: T) => R} select
 * @returns {R}
 */
export function useObservable(observable, select) {
  const selected = select(observable.value);
  const [, redraw] = useState(/** @type {any} */ (null));
  useEffect(() => {
    let shown = selected;
    const look = () => {
      const now = select(observable.value);
      if (Object.is(now, shown)) return;
      shown = now;
      redraw({});
    };
    look();
    return /** @type {any} */ (observable.subscribe(look));
  }, [observable]);
  return selected;
}

/**
 * Redraws every `everyMs` while a view needs a clock; null stops it.
 * @param {number | null} everyMs
 */
export function useTicks(everyMs) {
  const [, redraw] = useState(0);
  useEffect(() => {
    if (everyMs === null) return undefined;
    const timer = setInterval(() => redraw((n) => n + 1), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
}
