/**
 * Where visitors of a client connect. The terms of each server decide: to the server, or to a port that the client opens.
 */
import * as Effect from "effect/Effect"
import * as ExecutionStrategy from "effect/ExecutionStrategy"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import type { Address } from "../core/Address.js"
import type { RefusalError } from "../core/Refusals.js"
import { Targets } from "../relay/Targets.js"
import * as VisitorPort from "../relay/VisitorPort.js"
import type { TransportError } from "../transport/Transport.js"
import type { ClientConfig } from "../url/TunnelUrl.js"

/** The server lets visitors connect to the client, whose URL names several targets: the port takes one address. */
export class SeveralTargets extends Schema.TaggedError<SeveralTargets>()("SeveralTargets", {}) {
  override get message(): string {
    return "the server lets visitors connect to this side, which needs a URL with one target, and the URL has several"
  }
}

export interface VisitorSide {
  /** Follows the terms of this server: opens or closes the port and the probes of the targets. */
  readonly set: (server: Address, visitors: "local" | "remote") => Effect.Effect<void, SeveralTargets | TransportError>
  /** Removes the terms of a server that is not used any more, unless it is the last. */
  readonly remove: (server: Address) => Effect.Effect<void>
  /** The address that visitors connect to on this side now. */
  readonly address: () => Option.Option<Address>
}

export interface Options<E extends RefusalError> {
  readonly config: ClientConfig
  readonly routes: VisitorPort.Routes<E>
  /** Holds the visitors' connections. */
  readonly visitors: Scope.Scope
}

/** Neither the port nor the probes run at first. Both end with the present scope. */
export const make = <E extends RefusalError>({ config, routes, visitors }: Options<E>) =>
  Effect.gen(function* () {
    const { probe } = yield* Targets
    const probes = yield* makeSwitch(probe)
    const port = yield* makeSwitch(
      Effect.gen(function* () {
        if (config.targets.length > 1) return yield* new SeveralTargets()
        const [address] = config.targets
        const port = yield* Effect.tapError(VisitorPort.open(address), ({ reason }) =>
          reason === "AddressInUse"
            ? Effect.logWarning(
                `port ${address.port} is in use, but the server sends, so that visitors would connect to ${String(address)} on this side; if that is the service, set mode=1 on the server, whose own port may have been in use`
              )
            : Effect.void
        )
        yield* VisitorPort.serve(port, routes, visitors)
        const details = { visitors: String(port.address) }
        yield* Effect.annotateLogs(Effect.logInfo("visitors connect to this side"), details)
        return port.address
      })
    )
    const sides = new Map<Address, "local" | "remote">()
    const turn = yield* Effect.makeSemaphore(1)
    const decide = Effect.suspend(() => {
      const used = new Set(sides.values())
      return Effect.zipRight(
        used.has("remote") ? probes.start : probes.stop,
        used.has("local") ? port.start : port.stop
      )
    }).pipe(turn.withPermits(1))

    const visitorSide: VisitorSide = {
      set: (server, side) =>
        Effect.zipRight(
          Effect.sync(() => sides.set(server, side)),
          decide
        ),
      remove: (server) =>
        Effect.suspend(() => (sides.size > 1 && sides.delete(server) ? Effect.ignore(decide) : Effect.void)),
      address: port.value
    }
    return visitorSide
  })

// internal

/** Something that is opened at most once at a time, in a child of the present scope. */
const makeSwitch = <A, E, R>(open: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const environment = yield* Effect.context<Exclude<R, Scope.Scope>>()
    const parent = yield* Effect.scope
    let opened: { readonly value: A; readonly scope: Scope.CloseableScope } | undefined
    const start = Effect.gen(function* () {
      if (opened !== undefined) return
      const scope = yield* Scope.fork(parent, ExecutionStrategy.sequential)
      yield* Effect.map(open, (value) => (opened = { value, scope })).pipe(
        Scope.extend(scope),
        Effect.provide(environment),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    })
    const stop = Effect.suspend(() => {
      const running = opened
      opened = undefined
      return running === undefined ? Effect.void : Scope.close(running.scope, Exit.void)
    })
    return { start, stop, value: () => Option.map(Option.fromNullable(opened), ({ value }) => value) }
  })
