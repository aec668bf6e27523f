/**
 * How many visitors may be served at once.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"

/** Every slot is held. The visitor is turned away; retrying later is up to them. */
export class SlotsFull extends Schema.TaggedError<SlotsFull>()("SlotsFull", { limit: Schema.Number }) {
  override get message(): string {
    return `all ${this.limit} slots are in use`
  }
}

export class Slots extends Context.Tag("nodepass/Slots")<
  Slots,
  {
    /** Holds one slot until the scope closes; fails at once when none is free. */
    readonly acquire: (protocol: "tcp" | "udp") => Effect.Effect<void, SlotsFull, Scope.Scope>
    /** Slots held now, by protocol. */
    readonly held: Effect.Effect<{ readonly tcp: number; readonly udp: number }>
  }
>() {}

export interface Options {
  /** Slots for TCP and UDP together. Defaults to no limit. */
  readonly limit?: number | undefined
}

export const make = (options?: Options): Slots["Type"] => {
  const limit = options?.limit ?? Infinity
  const held = { tcp: 0, udp: 0 }
  return Slots.of({
    acquire: (protocol) =>
      // Half the cost of `acquireRelease`, which also keeps the fiber's refs for the release.
      Effect.uninterruptible(
        Effect.scopeWith((scope) => {
          if (held.tcp + held.udp >= limit) return Effect.fail(new SlotsFull({ limit }))
          held[protocol]++
          return Scope.addFinalizer(
            scope,
            Effect.sync(() => held[protocol]--)
          )
        })
      ),
    held: Effect.sync(() => ({ ...held }))
  })
}

export const layer = (options?: Options): Layer.Layer<Slots> => Layer.sync(Slots, () => make(options))
