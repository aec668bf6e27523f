/**
 * Connections that do not block, which streams use in place of `Transport.Connection`: every call does what is possible now
 * and returns. No call calls the owner.
 */

export interface Connection {
  /**
   * Reads up to `size` bytes into `bytes`, from `at` on. Returns how many, `0` at the end of the peer and from then on,
   * `nothing` when there is nothing now, or `broken`.
   *
   * After `nothing`, the owner's `ready` is called when there may be something.
   */
  read(bytes: Uint8Array, at: number, size: number): number
  /**
   * Writes up to `size` bytes of `bytes`, from `at` on. Returns how many were taken, which may be none, or `broken`.
   *
   * After fewer than `size`, the owner's `ready` is called when there may be room.
   */
  write(bytes: Uint8Array, at: number, size: number): number
  /** Half-closes this side, after all that was written. */
  shutdown(): void
  /** Closes both directions, after all that was written. Nothing may be called afterwards. */
  close(): void
  /** Resets the connection. Nothing may be called afterwards. */
  reset(): void
  /** Sets the owner. It is not called about the present state: it has to try what is possible. */
  setOwner(owner: Owner): void
}

export interface Owner {
  /**
   * Something may be read, or the connection is over; there may be room to write. `isBroken`: the connection was reset or
   * failed, told without a read by connections that can.
   */
  ready(readable: boolean, writable: boolean, isBroken?: boolean): void
}

/** There is nothing to read now. */
export const nothing = -1
/** The connection was reset, or failed. */
export const broken = -2
