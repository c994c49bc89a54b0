/**
 * What a page knows of a room: `apply(room, envelope) → room`, pure.
 *
 * Responsible for chapter 3 of live/PROTOCOL.md: facts in order, newest state wins, comments after
 * the position, the law that a page which dropped and came back equals one that never dropped. It
 * must not know sockets, time or the DOM; it is held to the `recovery` vectors.
 *
 * A room is never changed in place; what did not change keeps its identity, so a view can compare
 * by reference. An envelope that changes nothing returns the very same room.
 */

import { Kind } from "./protocol.js";

/** Comments a page keeps; older ones have scrolled away. */
export const COMMENTS_MAX = 200;
/** Retractions remembered because control overtakes chat: the comment may come after them. */
export const RETRACTED_MAX = 64;

/**
 * @typedef {object} Comment
 * @property {number} at
 * @property {{id: string, name: string, role: string}} by
 * @property {string} text
 */
/**
 * @typedef {object} Room
 * @property {string | null} epoch null before the first snapshot
 * @property {number} control offset of the last fact
 * @property {number} chat offset of the last comment or marker
 * @property {Readonly<Record<string, any>>} facts
 * @property {Readonly<Record<string, readonly [number, any]>>} states
 * @property {readonly (readonly [number, Comment])[]} comments
 * @property {readonly (readonly [number, number])[]} gaps [offset, n]: n comments up to offset were left out
 * @property {readonly number[]} retracted chat offsets that must not appear
 */

/** @type {Room} */
export const EMPTY = Object.freeze({
  epoch: null,
  control: 0,
  chat: 0,
  facts: Object.freeze({}),
  states: Object.freeze({}),
  comments: Object.freeze([]),
  gaps: Object.freeze([]),
  retracted: Object.freeze([]),
});

/**
 * The room after an envelope.
 * @param {Room} room
 * @param {import("./protocol.js").Envelope} envelope
 * @returns {Room}
 */
export function apply(room, envelope) {
  switch (envelope[0]) {
    case Kind.CONTROL:
      return control(room, envelope[1], envelope[2], envelope[3]);
    case Kind.STATE:
      return state(room, envelope[1], envelope[2], envelope[3]);
    case Kind.CHAT:
      return chat(room, envelope[1], envelope[2]);
    case Kind.SKIPPED:
      return skipped(room, envelope[1], envelope[2]);
    case Kind.SNAPSHOT:
      return snapshot(envelope[1]);
    default:
      return room;
  }
}

/**
 * @param {Room} room
 * @param {number} offset
 * @param {string} key
 * @param {any} value
 * @returns {Room}
 */
function control(room, offset, key, value) {
  if (room.epoch === null || offset <= room.control) return room;
  if (key === "retracted") return retract({ ...room, control: offset }, value?.comment);
  const facts = { ...room.facts };
  if (value === null) delete facts[key];
  else facts[key] = value;
  return { ...room, control: offset, facts };
}

/**
 * @param {Room} room
 * @param {unknown} comment
 * @returns {Room}
 */
function retract(room, comment) {
  if (typeof comment !== "number") return room;
  return {
    ...room,
    comments: room.comments.filter(([offset]) => offset !== comment),
    retracted: [...room.retracted, comment].slice(-RETRACTED_MAX),
  };
}

/**
 * @param {Room} room
 * @param {string} key
 * @param {number} version
 * @param {any} value
 * @returns {Room}
 */
function state(room, key, version, value) {
  const known = room.states[key];
  if (room.epoch === null || (known && version <= known[0])) return room;
  return { ...room, states: { ...room.states, [key]: [version, value] } };
}

/**
 * @param {Room} room
 * @param {number} offset
 * @param {Comment} comment
 * @returns {Room}
 */
function chat(room, offset, comment) {
  if (room.epoch === null || offset <= room.chat) return room;
  if (room.retracted.includes(offset)) return { ...room, chat: offset };
  const comments = [...room.comments, /** @type {const} */ ([offset, comment])];
  return bounded({ ...room, chat: offset, comments });
}

/**
 * @param {Room} room
 * @param {number} n
 * @param {number} offset
 * @returns {Room}
 */
function skipped(room, n, offset) {
  if (room.epoch === null || offset <= room.chat) return room;
  return bounded({ ...room, chat: offset, gaps: [...room.gaps, [offset, n]] });
}

/**
 * Keeps the newest comments, and the gaps that lie between them.
 * @param {Room} room
 * @returns {Room}
 */
function bounded(room) {
  if (room.comments.length <= COMMENTS_MAX && room.gaps.length <= COMMENTS_MAX) return room;
  const comments = room.comments.slice(-COMMENTS_MAX);
  const oldest = comments.length > 0 ? comments[0][0] : 0;
  return {
    ...room,
    comments,
    gaps: room.gaps.filter(([offset]) => offset > oldest).slice(-COMMENTS_MAX),
  };
}

/**
 * @param {any} image
 * @returns {Room}
 */
function snapshot(image) {
  return {
    epoch: image.epoch,
    control: image.control,
    chat: image.chat,
    facts: image.facts,
    states: image.states,
    comments: image.comments.slice(-COMMENTS_MAX),
    gaps: [],
    retracted: [],
  };
}

/**
 * Where this page is, for the next join.
 * @param {Room} room
 * @returns {[string, number, number] | undefined}
 */
export function position(room) {
  return room.epoch === null ? undefined : [room.epoch, room.control, room.chat];
}

/**
 * Newest value of a state.
 * @param {Room} room
 * @param {string} key
 */
export function stateOf(room, key) {
  return room.states[key]?.[1];
}

/**
 * Comments that were left out since the last snapshot.
 * @param {Room} room
 */
export function skippedCount(room) {
  return room.gaps.reduce((sum, [, n]) => sum + n, 0);
}
