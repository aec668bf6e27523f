/**
 * How many visitors may be served at once.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"

/** Every slot is in use. The visitor is reset; the tunnel does not retry for it. */
export class SlotsFull extends Schema.TaggedError<SlotsFull>()("SlotsFull", { limit: Schema.Number }) {
  override get message(): string {
    return `all ${this.limit} slots are in use`
  }
}

export class Slots extends Context.Tag("nodepass/Slots")<
  Slots,
  {
    /** Holds one slot until the scope closes; fails at once when none is free. */
    readonly acquire: Effect.Effect<void, SlotsFull, Scope.Scope>
  }
>() {}

export interface Options {
  /** Slots for TCP and UDP visitors together. Defaults to no limit. */
  readonly limit?: number | undefined
}

export const make = (options?: Options): Slots["Type"] => {
  const limit = options?.limit ?? Infinity
  let held = 0
  const release = Effect.sync(() => {
    held--
  })
  return Slots.of({
    // Half the cost of `acquireRelease`, which also keeps the fiber's refs for the release.
    acquire: Effect.uninterruptible(
      Effect.scopeWith((scope) => {
        if (held >= limit) return Effect.fail(new SlotsFull({ limit }))
        held++
        return Scope.addFinalizer(scope, release)
      })
    )
  })
}

export const layer = (options?: Options): Layer.Layer<Slots> => Layer.sync(Slots, () => make(options))
