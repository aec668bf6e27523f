/**
 * How much a lost packet holds up the other streams of its carrier, and how many carriers help. Run by hand:
 * `npx tsx bench/carriers.ts`. The figures are in docs/performance.md.
 */
import { Multiplexer } from "../src/stream/Multiplexer.js"
import { type Connection, nothing, type Owner } from "../src/transport/NonBlocking.js"
import { Clock } from "../test/simulation/streams/Clock.js"
import { type Path, Link } from "../test/simulation/streams/Link.js"

const local: Path = { latencyMillis: 0, bufferBytes: 65_536, shortness: 0, refusals: 0, tells: true }
const buffer = new Uint8Array(64 * 1024)

class Echo implements Owner {
  private readonly end: Connection
  constructor(end: Connection) {
    this.end = end
  }
  start() {
    this.end.setOwner(this)
    this.ready()
  }
  ready() {
    for (let count = this.end.read(buffer, 0, 1000); count > 0; count = this.end.read(buffer, 0, 1000)) {
      this.end.write(buffer, 0, count)
    }
  }
}

/** Asks with so many bytes, waits for as many, and asks again after a pause. */
class Asker implements Owner {
  private readonly clock: Clock
  private readonly end: Connection
  private readonly bytes: number
  private readonly trips: Array<number>
  private left = 0
  private askedAt = 0
  constructor(clock: Clock, end: Connection, bytes: number, trips: Array<number>) {
    this.clock = clock
    this.end = end
    this.bytes = bytes
    this.trips = trips
  }
  start() {
    this.end.setOwner(this)
    this.end.read(buffer, 0, 1)
    this.clock.after(this.clock.below(100), () => this.ask())
  }
  private ask() {
    this.askedAt = this.clock.now
    this.left = this.bytes
    this.end.write(buffer, 0, this.bytes)
  }
  ready(readable: boolean) {
    if (!readable) return
    for (;;) {
      const count = this.end.read(buffer, 0, buffer.length)
      if (count === nothing) return
      this.left -= count
      if (this.left > 0) continue
      this.trips.push(this.clock.now - this.askedAt)
      this.clock.after(20 + this.clock.below(60), () => this.ask())
    }
  }
}

const measure = (carriers: number, streams: number, path: Path) => {
  const clock = new Clock(1)
  const trips: Array<number> = []
  const side = (
    visitors: "local" | "remote",
    opened: (typeof Multiplexer.prototype.options)["opened"]
  ): Multiplexer => {
    const multiplexer: Multiplexer = new Multiplexer({
      visitors,
      maxStreams: 10_000,
      idleMillis: Infinity,
      wake: () => clock.after(0, () => multiplexer.turn()),
      opened,
      lost: () => {},
      failed: (_, problem) => {
        throw new Error(problem)
      }
    })
    const sweep = () => {
      multiplexer.sweep(clock.now, 5000)
      clock.after(250, sweep)
    }
    sweep()
    return multiplexer
  }
  const listener = { ended: () => {}, moved: () => {} }
  const targets = side("remote", (stream) => {
    const { far, near } = new Link(clock, local)
    stream.listener = listener
    new Echo(far).start()
    targets.connect(stream, near)
  })
  const visitors = side("local", () => {})
  for (let number = 1; number <= carriers; number++) {
    const { far, near } = new Link(clock, path)
    visitors.carrier(number).attach(near)
    targets.attach(number, 1, far)
  }
  for (let count = 0; count < streams; count++) {
    const { far, near } = new Link(clock, local)
    new Asker(clock, far, 200, trips).start()
    visitors.open(near, new Uint8Array(0), listener)
  }
  while (clock.now < 60_000) clock.step()
  trips.sort((a, b) => a - b)
  const at = (share: number) => trips[Math.floor(share * trips.length)]?.toFixed(0)
  return `${at(0.5)} / ${at(0.95)} / ${at(0.99)}`
}

const lossMillis = 40
for (const loss of [0.001, 0.01, 0.03]) {
  for (const streams of [10, 100]) {
    const path = { ...local, latencyMillis: 20, bufferBytes: 1_000_000, loss, lossMillis }
    const each = [1, 2, 4, 8, 16].map((carriers) => `${carriers}: ${measure(carriers, streams, path)}`)
    console.log(`loss ${loss * 100} %, ${streams} streams, p50 / p95 / p99 ms by carriers: ${each.join(", ")}`)
  }
}
