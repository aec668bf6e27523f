/**
 * A pool connection that a stream may be moved to.
 */
import type { Connection } from "../transport/Transport.js"
import type { Pooled } from "./VisitorStream.js"

export class PooledConnection implements Pooled {
  readonly connection: Connection
  readonly reset: () => void
  /** Frees what it holds, after the connection was closed. */
  readonly release: () => void

  constructor({ connection, release, reset }: Pick<PooledConnection, "connection" | "release" | "reset">) {
    this.connection = connection
    this.reset = reset
    this.release = release
  }
}
