/**
 * Where a moved stream goes on: its connection and a pool connection, with nothing between them but copies.
 */
import * as NonBlocking from "../../../src/transport/NonBlocking.js"

/** Passes what comes from each to the other, `ahead` before what comes from `far`. */
export const splice = (near: NonBlocking.Connection, far: NonBlocking.Connection, ahead: Uint8Array) => {
  let isOver = false
  const there = new Direction(near, far, new Uint8Array(0))
  const back = new Direction(far, near, ahead)
  const go = () => {
    if (isOver) return
    const isBroken = !there.pass() || !back.pass()
    if (!isBroken && !(there.isDone && back.isDone)) return
    isOver = true
    for (const connection of [near, far]) {
      if (isBroken) connection.reset()
      else connection.close()
    }
  }
  near.setOwner({ ready: go })
  far.setOwner({ ready: go })
  go()
}

// internal

const buffer = new Uint8Array(16_384)

class Direction {
  isDone = false
  private readonly from: NonBlocking.Connection
  private readonly to: NonBlocking.Connection
  private pending: Uint8Array
  private hasEnded = false

  constructor(from: NonBlocking.Connection, to: NonBlocking.Connection, pending: Uint8Array) {
    this.from = from
    this.to = to
    this.pending = pending
  }

  /** Returns `false` when a connection is broken. */
  pass(): boolean {
    while (!this.isDone) {
      if (this.pending.length > 0) {
        const taken = this.to.write(this.pending, 0, this.pending.length)
        if (taken < 0) return false
        this.pending = this.pending.subarray(taken)
        if (this.pending.length > 0) return true
      }
      if (this.hasEnded) {
        this.isDone = true
        this.to.shutdown()
        return true
      }
      const count = this.from.read(buffer, 0, buffer.length)
      if (count === NonBlocking.nothing) return true
      if (count < 0) return false
      if (count === 0) this.hasEnded = true
      else this.pending = buffer.slice(0, count)
    }
    return true
  }
}
