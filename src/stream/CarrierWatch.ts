/**
 * Whether the connection of a carrier still passes bytes, by what comes of it.
 */

export class CarrierWatch {
  /** Since when the other side has to acknowledge something and nothing has come of it, and how much had come then. */
  private silentSince: number | undefined
  private silentFrom = 0
  /** Since when it has acknowledged nothing, and up to where it had. */
  private deafSince = 0
  private deafFrom = 0
  /** Since when nothing has come at all, and how much had come then. */
  private quietSince: number | undefined
  private quietFrom = 0

  /** There is another connection, or the other side has sent how much it has received. */
  begin() {
    this.silentSince = undefined
    this.quietSince = undefined
  }
  /**
   * Nothing is to be acknowledged. Returns whether to ask for it: nothing has come for so long that the other side may have
   * given up the connection, without a way to say so.
   */
  isQuiet(now: number, come: number, limitMillis: number): boolean {
    this.silentSince = undefined
    if (this.quietSince === undefined || come > this.quietFrom) {
      this.quietSince = now
      this.quietFrom = come
    }
    return now - this.quietSince >= limitMillis * quietLimits
  }
  /**
   * Something is to be acknowledged. Returns whether to give up: nothing has come for the limit; or, where something comes, no
   * acknowledgement for much longer, since acknowledgements wait behind other frames.
   */
  isLost(now: number, come: number, acknowledged: number, limitMillis: number): boolean {
    if (this.silentSince === undefined || acknowledged > this.deafFrom) {
      this.deafSince = now
      this.deafFrom = acknowledged
    }
    if (this.silentSince === undefined || come > this.silentFrom) {
      this.silentSince = now
      this.silentFrom = come
    }
    return now - this.silentSince >= limitMillis || now - this.deafSince >= limitMillis * deafLimits
  }
}

// internal

/** After how many limits a quiet connection is asked whether it is alive. */
const quietLimits = 4

/** How many limits the other side has to acknowledge something while it sends. */
const deafLimits = 16
