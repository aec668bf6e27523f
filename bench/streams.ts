/**
 * What streams cost without a network: two multiplexers over carriers in memory. Run by hand: `npx tsx bench/streams.ts`.
 */
import nodeProcess from "node:process"
import { Multiplexer } from "../src/stream/Multiplexer.js"
import * as StreamFrame from "../src/stream/StreamFrame.js"
import type { VisitorStream } from "../src/stream/VisitorStream.js"
import { type Connection, nothing, type Owner } from "../src/transport/NonBlocking.js"

/** An end of a connection in memory, with room for so many bytes. */
class End implements Connection {
  peer!: End
  private readonly bytes: Uint8Array
  private from = 0
  private size = 0
  private owner: Owner | undefined
  private waitsReadable = false
  private waitsWritable = false
  private hasEnded = false

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity)
  }
  read(bytes: Uint8Array, at: number, size: number): number {
    const count = Math.min(size, this.size, this.bytes.length - this.from)
    if (count === 0) {
      if (this.hasEnded) return 0
      this.waitsReadable = true
      return nothing
    }
    bytes.set(this.bytes.subarray(this.from, this.from + count), at)
    this.from = (this.from + count) % this.bytes.length
    this.size -= count
    if (this.peer.waitsWritable) events.push(this.peer)
    return count
  }
  write(bytes: Uint8Array, at: number, size: number): number {
    const { peer } = this
    let written = 0
    while (written < size) {
      const to = (peer.from + peer.size) % peer.bytes.length
      const count = Math.min(size - written, peer.bytes.length - peer.size, peer.bytes.length - to)
      if (count === 0) {
        this.waitsWritable = true
        break
      }
      peer.bytes.set(bytes.subarray(at + written, at + written + count), to)
      peer.size += count
      written += count
    }
    if (peer.waitsReadable && written > 0) events.push(peer)
    return written
  }
  shutdown() {
    this.peer.hasEnded = true
    if (this.peer.waitsReadable) events.push(this.peer)
  }
  close() {
    if (!this.peer.hasEnded) this.shutdown()
  }
  reset() {
    this.close()
  }
  setOwner(owner: Owner) {
    this.owner = owner
  }
  tell() {
    const [readable, writable] = [this.waitsReadable && (this.size > 0 || this.hasEnded), this.waitsWritable]
    if (readable) this.waitsReadable = false
    if (writable) this.waitsWritable = false
    if (readable || writable) this.owner?.ready(readable, writable)
  }
}

const pair = (capacity: number): readonly [End, End] => {
  const [near, far] = [new End(capacity), new End(capacity)]
  near.peer = far
  far.peer = near
  return [near, far]
}

let events: Array<{ tell: () => void }> = []
const run = () => {
  while (events.length > 0) {
    const now = events
    events = []
    for (const event of now) event.tell()
  }
}

const buffer = new Uint8Array(64 * 1024)

/** Sends so many bytes, then half-closes; reads all. */
class Peer implements Owner {
  private readonly end: End
  private left: number
  private isShut = false
  private isOver = false
  private readonly over: () => void
  constructor(end: End, bytes: number, over: () => void) {
    this.end = end
    this.left = bytes
    this.over = over
  }
  start() {
    this.end.setOwner(this)
    this.ready(true, true)
  }
  ready(readable: boolean, writable: boolean) {
    if (writable && !this.isShut) {
      while (this.left > 0) {
        const size = Math.min(this.left, buffer.length)
        const taken = this.end.write(buffer, 0, size)
        this.left -= taken
        if (taken < size) break
      }
      if (this.left === 0) {
        this.isShut = true
        this.end.shutdown()
      }
    }
    if (!readable || this.isOver) return
    for (;;) {
      const count = this.end.read(buffer, 0, buffer.length)
      if (count === nothing) return
      if (count > 0) continue
      this.isOver = true
      return this.over()
    }
  }
}

const side = (visitors: "local" | "remote", opened: (stream: VisitorStream) => void): Multiplexer => {
  const turn = { tell: () => multiplexer.turn() }
  const multiplexer = new Multiplexer({
    visitors,
    maxStreams: 100_000,
    idleMillis: Infinity,
    wake: () => void events.push(turn),
    opened,
    lost: () => {},
    failed: (_, problem) => {
      throw new Error(problem)
    }
  })
  return multiplexer
}

const measure = (name: string, streams: number, atOnce: number, bytes: number, capacity: number) => {
  const ignore = { ended: () => {}, moved: () => {} }
  let targetsOver = 0
  const targets = side("remote", (stream) => {
    const [near, far] = pair(capacity)
    stream.listener = ignore
    new Peer(far, bytes, () => targetsOver++).start()
    targets.connect(stream, near)
  })
  const visitors = side("local", () => {})
  for (let number = 1; number <= 2; number++) {
    const [near, far] = pair(256 * 1024)
    visitors.carrier(number).attach(near)
    targets.attach(number, 1, far)
  }
  run()
  let [begun, over] = [0, 0]
  const begin = () => {
    if (begun === streams) return
    begun++
    const [near, far] = pair(capacity)
    new Peer(far, bytes, () => {
      over++
      begin()
    }).start()
    visitors.open(near, payload, ignore)
  }
  const before = nodeProcess.cpuUsage()
  for (let count = 0; count < atOnce; count++) begin()
  run()
  const used = nodeProcess.cpuUsage(before)
  if (over !== streams || targetsOver !== streams) throw new Error(`${over} and ${targetsOver} of ${streams}`)
  const micros = used.user + used.system
  const total = (2 * bytes * streams) / 1e6
  console.log(
    `${name}: ${(micros / streams).toFixed(1)} us of CPU a stream, ${Math.round((streams / micros) * 1e6)} streams/s, ${Math.round(total / (micros / 1e6))} MB/s`
  )
}

const payload = new Uint8Array(StreamFrame.headerBytes)
for (let round = 0; round < 3; round++) {
  measure("100 bytes each way, 32 at once", 20_000, 32, 100, 1024)
  measure("100 bytes each way, 256 at once", 20_000, 256, 100, 1024)
  measure("8 MB each way, 8 at once", 32, 8, 8_000_000, 128 * 1024)
}
