/**
 * The pipes that bulk goes through: some for all, each used by one direction at a time.
 */
import * as SharedState from "./SharedState.js"
import type { Libc, Pipe } from "../ffi/Libc.js"

export interface Pipes {
  /** Bytes that each has room for. */
  readonly room: number
  /** An empty pipe, unless all are in use. */
  readonly take: () => Pipe | undefined
  /** Gives back an empty pipe. */
  readonly give: (pipe: Pipe) => void
  /** Closes a pipe that has bytes in it, which are lost. */
  readonly discard: (pipe: Pipe) => void
  /** Closes those that are not in use. */
  readonly close: () => void
}

export const make = (libc: Libc, { descriptors }: SharedState.SharedState): Pipes => {
  const free: Array<Pipe> = []
  const places = Array.from({ length: SharedState.pipes }, (_, index) => 2 * index)
  const placeOf = new Map<Pipe, number>()
  const open = () => {
    const place = places.pop()
    if (place === undefined) return undefined
    const pipe = libc.pipe(room)
    if (pipe === undefined) {
      places.push(place)
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
    places.push(place)
    descriptors[place] = 0
    descriptors[place + 1] = 0
    libc.close(pipe.read)
    libc.close(pipe.write)
  }
  return {
    room,
    take: () => free.pop() ?? open(),
    give: (pipe) => free.push(pipe),
    discard,
    close: () => free.splice(0).forEach(discard)
  }
}

// internal

const room = 256 * 1024
