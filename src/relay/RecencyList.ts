/**
 * Values in the order of their last use. Each operation takes constant time, which a `Map` does not: after many removals
 * from its front, V8 skips every removed entry to find the first.
 */

export interface Entry<A> {
  readonly value: A
  older: Entry<A> | undefined
  newer: Entry<A> | undefined
}

export interface RecencyList<A> {
  /** Adds the value as the one used last. */
  readonly add: (value: A) => Entry<A>
  /** Makes the entry, which is in this list, the one used last. */
  readonly touch: (entry: Entry<A>) => void
  /** Removes the entry, which is in this list. */
  readonly remove: (entry: Entry<A>) => void
  /** The value that was not used for longest. */
  readonly oldest: () => A | undefined
  readonly size: () => number
}

export const make = <A>(): RecencyList<A> => {
  let oldest: Entry<A> | undefined
  let newest: Entry<A> | undefined
  let size = 0
  const append = (entry: Entry<A>) => {
    entry.older = newest
    entry.newer = undefined
    if (newest === undefined) oldest = entry
    else newest.newer = entry
    newest = entry
  }
  const detach = ({ newer, older }: Entry<A>) => {
    if (older === undefined) oldest = newer
    else older.newer = newer
    if (newer === undefined) newest = older
    else newer.older = older
  }
  return {
    add: (value) => {
      const entry: Entry<A> = { value, older: undefined, newer: undefined }
      append(entry)
      size++
      return entry
    },
    touch: (entry) => {
      if (entry === newest) return
      detach(entry)
      append(entry)
    },
    remove: (entry) => {
      detach(entry)
      size--
    },
    oldest: () => oldest?.value,
    size: () => size
  }
}
