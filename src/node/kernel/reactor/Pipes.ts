/**
 * The pipes that bulk goes through. All exchanges of a thread share them; one direction uses a pipe at a time.
 */
import * as SharedState from "./SharedState.js"
import type { Libc, Pipe } from "../ffi/Libc.js"

export interface Pipes {
  /** Bytes that a pipe can hold. */
  readonly capacity: number
  /** An empty pipe; `undefined` when all are in use. */
  readonly acquire: () => Pipe | undefined
  /** Returns an empty pipe. */
  readonly release: (pipe: Pipe) => void
  /** Closes a pipe that still has bytes, which are lost. */
  readonly discard: (pipe: Pipe) => void
  /** Closes the pipes that are not in use. */
  readonly close: () => void
}

export const make = (libc: Libc, { descriptors }: SharedState.SharedState): Pipes => {
  const unused: Array<Pipe> = []
  const freePlaces = Array.from({ length: SharedState.maxPipes }, (_, index) => 2 * index)
  const placeOf = new Map<Pipe, number>()
  const open = () => {
    const place = freePlaces.pop()
    if (place === undefined) return undefined
    const pipe = libc.pipe(capacity)
    if (pipe === undefined) {
      freePlaces.push(place)
      return undefined
    }
    placeOf.set(pipe, place)
    descriptors[place] = pipe.read
    descriptors[place + 1] = pipe.write
    return pipe
  }
  const discard = (pipe: Pipe) => {
    const place = placeOf.get(pipe)
    if (place === undefined) return
    placeOf.delete(pipe)
    freePlaces.push(place)
    // Before they are closed: see `SharedState.descriptors`.
    descriptors[place] = 0
    descriptors[place + 1] = 0
    libc.close(pipe.read)
    libc.close(pipe.write)
  }
  return {
    capacity,
    acquire: () => unused.pop() ?? open(),
    release: (pipe) => unused.push(pipe),
    discard,
    close: () => unused.splice(0).forEach(discard)
  }
}

// internal

const capacity = 256 * 1024
