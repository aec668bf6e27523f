/**
 * The first bytes of a visitor, kept until something comes back: if their pool connection proves to be dead, they are sent
 * again over another one.
 */

export interface Kept {
  readonly isKeeping: () => boolean
  /** Keeps the chunk, which must not change later. Beyond 16 KiB nothing is kept any more. */
  readonly add: (chunk: Uint8Array) => void
  /** Everything that was added, in order; `undefined` once it was dropped. */
  readonly chunks: () => ReadonlyArray<Uint8Array> | undefined
  readonly drop: () => void
}

/** The most bytes that are kept of one visitor: more than a question has, and little for each of many visitors. */
export const maxBytes = 16 * 1024

export const make = (): Kept => {
  let chunks: Array<Uint8Array> | undefined = []
  let bytes = 0
  const drop = () => {
    chunks = undefined
  }
  return {
    isKeeping: () => chunks !== undefined,
    add: (chunk) => {
      bytes += chunk.length
      if (bytes > maxBytes) drop()
      else chunks?.push(chunk)
    },
    chunks: () => chunks,
    drop
  }
}
