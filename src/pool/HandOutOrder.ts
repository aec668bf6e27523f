/**
 * Which idle connection is handed out next: the one that has been idle longest, the newest, or that with the lowest round
 * trip.
 */
import { constVoid } from "effect/Function"
import type { Connection } from "../transport/Transport.js"

export type Order = "oldest" | "newest" | "fastest"

/** What is put in order. */
export interface Ordered {
  readonly pooled: { readonly id: string; readonly connection: Connection }
}

export interface HandOutOrder<A> {
  /** Adds a connection that becomes idle. */
  readonly add: (added: A) => void
  /** The next connection to hand out, of those that are still idle. */
  readonly first: () => A | undefined
  /** So many idle connections that are to be handed out last; with `newest` and `oldest` those that have been idle longest. */
  readonly surplus: (count: number) => ReadonlyArray<A>
}

/** `idle` has the idle connections by their id, the one that has been idle longest first. */
export const make = <A extends Ordered>(order: Order, idle: ReadonlyMap<string, A>): HandOutOrder<A> => {
  const longest = (count: number) => Array.from(idle.values()).slice(0, Math.max(0, count))
  if (order === "oldest") return { add: constVoid, first: () => longestIdle(idle), surplus: longest }
  const heap = makeHeap<A>(({ value }) => idle.get(value.pooled.id) === value)
  let count = 0
  return {
    add: (value) => {
      count++
      const rank = order === "newest" ? -count : roundTripOf(value.pooled.connection)
      heap.add({ value, rank, number: count }, idle.size)
    },
    first: () => heap.first()?.value,
    surplus: order === "newest" ? longest : (count) => heap.last(count).map(({ value }) => value)
  }
}

/** Milliseconds; infinite where none is measured. An idle connection does not measure it anew. */
export const roundTripOf = ({ inspect }: Connection): number => inspect?.().roundTripMillis ?? Infinity

// internal

const longestIdle = <A>(idle: ReadonlyMap<string, A>): A | undefined => {
  for (const first of idle.values()) return first
  return undefined
}

interface Entry<A> {
  readonly value: A
  readonly rank: number
  /** Decides between equal ranks. */
  readonly number: number
}

const compare = (left: Entry<unknown>, right: Entry<unknown>): number =>
  left.rank === right.rank ? left.number - right.number : left.rank < right.rank ? -1 : 1

/** A binary heap, lowest rank first. Entries that are no longer idle stay in it until they are found. */
const makeHeap = <A>(isIdle: (entry: Entry<A>) => boolean) => {
  let entries: Array<Entry<A>> = []
  const isBefore = (left: Entry<A> | undefined, right: Entry<A> | undefined): boolean =>
    left !== undefined && right !== undefined && compare(left, right) < 0
  const swap = (one: number, other: number) => {
    const [left, right] = [entries[one], entries[other]]
    if (left === undefined || right === undefined) return
    entries[one] = right
    entries[other] = left
  }
  const add = (entry: Entry<A>) => {
    entries.push(entry)
    for (let at = entries.length - 1; at > 0;) {
      const parent = (at - 1) >> 1
      if (!isBefore(entries[at], entries[parent])) return
      swap(at, parent)
      at = parent
    }
  }
  const removeFirst = () => {
    swap(0, entries.length - 1)
    entries.pop()
    for (let at = 0; ;) {
      const [left, right] = [2 * at + 1, 2 * at + 2]
      const least = isBefore(entries[right], entries[left]) ? right : left
      if (!isBefore(entries[least], entries[at])) return
      swap(at, least)
      at = least
    }
  }
  const sorted = () => entries.filter(isIdle).toSorted(compare)
  return {
    /** `count`: how many are idle. */
    add: (entry: Entry<A>, count: number) => {
      // Sorted entries are a heap.
      if (entries.length > 2 * count + 64) entries = sorted()
      add(entry)
    },
    first: () => {
      for (let [first] = entries; first !== undefined; [first] = entries) {
        if (isIdle(first)) return first
        removeFirst()
      }
      return undefined
    },
    last: (count: number) => (count <= 0 ? [] : sorted().slice(-count))
  }
}
