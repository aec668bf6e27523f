/**
 * Streams that wait for room on their carrier: those with little traffic go first, then bulk, each in the order of their coming.
 */

/** Says whether a stream may go on, and lets it. */
export interface Room<S> {
  readonly hasRoom: (isBulk: boolean) => boolean
  readonly unparked: (stream: S) => void
}

export class ParkedStreams<S> {
  private readonly room: Room<S>
  private readonly light = new Set<S>()
  private readonly bulk = new Set<S>()

  constructor(room: Room<S>) {
    this.room = room
  }
  count() {
    return this.light.size + this.bulk.size
  }
  add(stream: S, isBulk: boolean) {
    const list = isBulk ? this.bulk : this.light
    list.add(stream)
  }
  remove(stream: S) {
    this.light.delete(stream)
    this.bulk.delete(stream)
  }
  clear() {
    this.light.clear()
    this.bulk.clear()
  }
  /** Lets streams go on while there is room. One that has to wait again waits behind the others. */
  release() {
    while (this.light.size > 0 && this.room.hasRoom(false)) this.releaseFirst(this.light)
    while (this.bulk.size > 0 && this.room.hasRoom(true)) this.releaseFirst(this.bulk)
  }
  private releaseFirst(list: Set<S>) {
    for (const stream of list) {
      list.delete(stream)
      return this.room.unparked(stream)
    }
  }
}
