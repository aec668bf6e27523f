/**
 * A `SessionStore` in memory, which outlives the simulated processes, and what a process that is killed does to it.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { type Place, SessionStore, SessionStoreError } from "../../../src/tunnel/SessionStore.js"

export interface MemoryStore {
  readonly layer: Layer.Layer<SessionStore>
  /** What is stored now, by the name of the tunnel. */
  readonly texts: Map<string, string>
  /** Everything that was ever written, oldest first. */
  readonly written: ReadonlyArray<{ readonly tunnel: string; readonly text: string; readonly isDurable: boolean }>
  /** The process that has this place is killed: what it still writes has no effect, and its lock is free. */
  readonly kill: (tunnel: string) => void
}

export interface Options {
  /** Changes the operations of each place. */
  readonly wrap?: (place: Place) => Partial<Place>
}

export const make = ({ wrap = () => ({}) }: Options = {}): MemoryStore => {
  const texts = new Map<string, string>()
  const written: Array<{ tunnel: string; text: string; isDurable: boolean }> = []
  const owners = new Map<string, symbol>()
  const open = (tunnel: string) =>
    Effect.gen(function* () {
      const owner = Symbol(tunnel)
      if (owners.has(tunnel)) {
        return yield* new SessionStoreError({ operation: "lock", file: tunnel, cause: new Error("it is in use") })
      }
      owners.set(tunnel, owner)
      const isOwner = () => owners.get(tunnel) === owner
      yield* Effect.addFinalizer(() => Effect.sync(() => isOwner() && owners.delete(tunnel)))
      const place: Place = {
        read: Effect.sync(() => Option.fromNullable(texts.get(tunnel))),
        write: (text, { isDurable }) =>
          Effect.sync(() => {
            if (!isOwner()) return
            texts.set(tunnel, text)
            written.push({ tunnel, text, isDurable })
          }),
        remove: Effect.sync(() => {
          if (isOwner()) texts.delete(tunnel)
        })
      }
      return { ...place, ...wrap(place) }
    })
  return {
    layer: Layer.succeed(SessionStore, { store: Option.some({ open }) }),
    texts,
    written,
    kill: (tunnel) => void owners.delete(tunnel)
  }
}
