/**
 * How the sessions of a tunnel make their pool. A host can replace either kind, or wrap the default one.
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"
import * as AcceptingPool from "./AcceptingPool.js"
import * as DialingPool from "./DialingPool.js"

export class PoolFactory extends Context.Tag("nodepass/PoolFactory")<
  PoolFactory,
  {
    /** The pool of a client's session: opens the connections. */
    readonly dialing: (options: DialingPool.Options) => ReturnType<typeof DialingPool.layer>
    /** The pool of a server's session: admits the connections that the client opens. */
    readonly accepting: (options: AcceptingPool.Options) => ReturnType<typeof AcceptingPool.layer>
  }
>() {}

/** Makes each pool with `DialingPool.layer` and `AcceptingPool.layer`. */
export const layer: Layer.Layer<PoolFactory> = Layer.succeed(PoolFactory, {
  dialing: DialingPool.layer,
  accepting: AcceptingPool.layer
})
