/**
 * Two multiplexers with carriers between them, visitors at one and targets at the other, and what may go wrong.
 */
import { assert } from "@effect/vitest"
import type { Carrier } from "../../../src/stream/Carrier.js"
import { Multiplexer } from "../../../src/stream/Multiplexer.js"
import * as SendBuffer from "../../../src/stream/SendBuffer.js"
import * as StreamFrame from "../../../src/stream/StreamFrame.js"
import type { Listener, Pooled, Result, VisitorStream } from "../../../src/stream/VisitorStream.js"
import { Clock } from "./Clock.js"
import { type End, Link } from "./Link.js"
import { Peer } from "./Peer.js"
import type { Fault, Scenario, StreamPlan } from "./Scenario.js"
import { splice } from "./Splice.js"

const sweepMillis = 250
const lostAfterMillis = 1000
const graceMillis = 3000
/** Visits that may hang have come to where they hang. */
const hangMillis = 5000
/** Everything is over by then. */
const patienceMillis = 3_600_000

export class World {
  readonly scenario: Scenario
  readonly clock: Clock
  readonly visits: ReadonlyArray<Visit>
  readonly visitors: Side
  readonly targets: Side
  /** The present connection of each carrier, and all of them. */
  readonly present = new Map<number, Link>()
  readonly links: Array<Link> = []
  /** How many connections each carrier had. */
  readonly attempts = new Map<number, number>()
  readonly pool = new Map<number, PoolLink>()
  /** Carriers that a side has ended. */
  readonly ended = new Set<number>()
  private lastCarrier: number
  private attaching = 0

  private readonly segments = SendBuffer.heldSegments()

  constructor(scenario: Scenario) {
    this.scenario = scenario
    this.clock = new Clock(scenario.seed)
    this.visitors = new Side(this, "local")
    this.targets = new Side(this, "remote")
    for (let id = 1; id <= scenario.pooled; id++) this.pool.set(id, new PoolLink(new Link(this.clock, scenario.path)))
    this.visits = scenario.streams.map((plan, at) => new Visit(this, plan, at + 1))
    this.lastCarrier = 0
    for (let count = 0; count < scenario.carriers; count++) this.addCarrier()
    for (const fault of scenario.faults) this.clock.at(fault.atMillis, () => this.strike(fault))
    for (const side of [this.visitors, this.targets]) side.sweep()
  }

  private side(role: "dialler" | "acceptor"): Side {
    return (this.scenario.dialler === "Visitors") === (role === "dialler") ? this.visitors : this.targets
  }

  private addCarrier() {
    const number = ++this.lastCarrier
    this.side("dialler").begin(number)
    if (this.scenario.passedBytes > 0) this.side("acceptor").begin(number)
    this.attach(number)
  }
  /** Dials a connection for a carrier. Each side gets its end after a while. */
  attach(number: number) {
    const { attachMillis, path } = this.scenario
    const delay = () => this.clock.below(attachMillis + 1)
    this.attaching++
    this.clock.after(delay(), () => {
      const carrier = this.side("dialler").multiplexer.carriers.get(number)
      if (carrier === undefined) {
        this.attaching--
        return
      }
      const link = new Link(this.clock, path)
      this.links.push(link)
      this.present.set(number, link)
      const attempt = carrier.attempt + 1
      this.attempts.set(number, attempt)
      carrier.attach(link.near)
      this.clock.after(delay(), () => {
        this.attaching--
        this.side("acceptor").multiplexer.attach(number, attempt, link.far)
      })
    })
  }
  /** A side has lost the connection of a carrier. The dialler dials another. */
  lost(side: Side, number: number, attempt: number) {
    const dialler = this.side("dialler")
    const delay = side === dialler ? 0 : this.scenario.path.latencyMillis
    // Where the visitors' side dials, a ping finds what it is not told: that side knows every stream.
    if (side === this.targets && dialler === this.visitors && !this.scenario.tells) return
    this.clock.after(delay, () => {
      const carrier = dialler.multiplexer.carriers.get(number)
      if (carrier?.attempt === attempt) this.attach(number)
    })
  }
  /** A side has ended a carrier: the other does so too when it hears nothing. The dialler begins another. */
  failed(side: Side, number: number) {
    this.ended.add(number)
    const other = side === this.visitors ? this.targets : this.visitors
    this.clock.after(graceMillis, () => other.end(number))
    if (side === this.side("dialler")) this.addCarrier()
  }

  private strike({ carrier, kind }: Fault) {
    if (kind === "CutPooled") {
      for (const pooled of this.pool.values()) if (pooled.isTaken) pooled.cut()
      return
    }
    const number = this.lastCarrier - (carrier % this.scenario.carriers)
    if (kind === "EndByVisitors") return this.visitors.end(number)
    if (kind === "EndByTargets") return this.targets.end(number)
    const link = this.present.get(number)
    if (kind === "Attach") this.attach(number)
    else if (kind === "Cut") link?.cut(this.clock.below(50), this.clock.below(50))
    else link?.freeze()
    if (kind === "Pause") this.clock.after(this.clock.below(1500), () => link?.thaw())
  }

  /** Runs to the end, and checks the laws. */
  run() {
    const { clock } = this
    this.runUntil(() => this.visits.every((visit) => visit.isOver() || visit.mayHang()), "visits hang")
    this.runUntil(() => {
      for (const visit of this.visits) visit.giveUp()
      return this.visits.every((visit) => visit.isOver()) && this.streams() === 0
    }, "streams are left")
    this.runUntil(() => this.attaching === 0, "attaches hang")
    for (const visit of this.visits) visit.check()
    this.checkQuiet()
    for (const pooled of this.pool.values()) {
      assert.strictEqual(pooled.near.end.isOver, pooled.isTaken, "a pool connection is left, or was not taken")
    }
    for (const side of [this.visitors, this.targets]) side.check()
    for (const side of [this.visitors, this.targets]) side.stop()
    assert.strictEqual(SendBuffer.heldSegments(), this.segments, "segments were not given back")
    return clock.events
  }
  private runUntil(isDone: () => boolean, problem: string) {
    const { clock } = this
    let next = clock.now
    for (;;) {
      if (clock.now >= next) {
        if (isDone()) return
        next = clock.now + sweepMillis
      }
      if (clock.now > patienceMillis || !clock.step()) assert.fail(`${problem}: ${this.describe()}`)
      if (clock.events % 16 !== 0) continue
      this.visitors.checkBounds()
      this.targets.checkBounds()
    }
  }
  runFor(millis: number) {
    const end = this.clock.now + millis
    while (this.clock.now < end) this.clock.step()
  }
  private checkQuiet() {
    // A connection that froze just now is given up, the next one attached, and the last frame acknowledged.
    this.runFor(8000)
    const before = this.links.map((link) => link.near.writtenBytes + link.far.writtenBytes)
    this.runFor(3000)
    const after = this.links.map((link) => link.near.writtenBytes + link.far.writtenBytes)
    assert.deepStrictEqual(after, before, "an idle carrier sends")
  }
  private streams() {
    return this.visitors.multiplexer.counts().streams + this.targets.multiplexer.counts().streams
  }
  describe() {
    const visits = this.visits.filter((visit) => !visit.isOver()).map((visit) => visit.describe())
    const sides = [this.visitors, this.targets].map((side) => side.describe())
    return [`at ${this.clock.now}`, ...visits, ...sides].join("\n  ")
  }
}

export class Side {
  readonly multiplexer: Multiplexer
  private readonly world: World
  readonly failures: Array<string> = []

  constructor(world: World, visitors: "local" | "remote") {
    this.world = world
    const { clock } = world
    this.multiplexer = new Multiplexer({
      visitors,
      maxStreams: 1000,
      idleMillis: Infinity,
      wake: () => clock.after(0, () => this.multiplexer.turn()),
      opened: (stream, payload) => world.visits[(payload[0] ?? 0) - 1]?.opened(stream),
      lost: (carrier) => world.lost(this, carrier.number, carrier.attempt),
      failed: (carrier, problem) => {
        // The other side has ended it. No other problem is expected.
        if (!world.ended.has(carrier.number)) this.failures.push(problem)
        world.failed(this, carrier.number)
      },
      moveAfterBytes: world.scenario.moveAfterBytes,
      takePooled: () => {
        for (const [id, pooled] of world.pool) {
          if (!pooled.isTaken) {
            pooled.isTaken = true
            return { id, pooled: pooled.near }
          }
        }
        return undefined
      },
      findPooled: (id) => {
        const pooled = world.pool.get(id)
        return pooled === undefined || pooled.isCut || pooled.far.end.isOver ? undefined : pooled.far
      }
    })
  }
  sweep() {
    this.multiplexer.sweep(this.world.clock.now, lostAfterMillis)
    this.world.clock.after(sweepMillis, () => this.sweep())
  }
  begin(number: number) {
    const carrier = this.multiplexer.carrier(number)
    const { passedBytes } = this.world.scenario
    Object.assign(carrier, { received: passedBytes, told: passedBytes, awaited: passedBytes })
    Object.assign(carrier.buffer, { end: passedBytes, sent: passedBytes, acknowledged: passedBytes })
    carrier.buffer.room(0).start = passedBytes
  }
  /** Ends a carrier with its streams. */
  end(number: number) {
    const carrier = this.multiplexer.carriers.get(number)
    if (carrier === undefined) return
    this.multiplexer.endCarrier(carrier, StreamFrame.resets.broken)
    this.world.failed(this, number)
  }
  stop() {
    for (const carrier of this.multiplexer.carriers.values()) {
      this.multiplexer.endCarrier(carrier, StreamFrame.resets.stopped)
    }
  }
  checkBounds() {
    const { grownBytes, pendingBytes, streams } = this.multiplexer.counts()
    const most = streams * 64 * 1024 + grownBytes
    if (pendingBytes > most) assert.fail(`${pendingBytes} bytes pending, and ${most} allowed`)
    if (grownBytes > 64 * 1024 * 1024) assert.fail(`windows have grown by ${grownBytes} bytes`)
    for (const carrier of this.multiplexer.carriers.values()) {
      const bytes = carrier.buffer.unacknowledged()
      if (bytes > 1024 * 1024 + 64 * 1024) assert.fail(`${bytes} bytes unacknowledged`)
    }
  }
  check() {
    const { grownBytes, pendingBytes, streams } = this.multiplexer.counts()
    assert.deepStrictEqual({ grownBytes, pendingBytes, streams }, { grownBytes: 0, pendingBytes: 0, streams: 0 })
    assert.deepStrictEqual(this.failures, [])
    for (const carrier of this.multiplexer.carriers.values()) {
      // Nobody asks for a carrier without streams.
      if (carrier.state === "Detached" && !this.world.scenario.tells) continue
      assert.deepStrictEqual(waiting(carrier), { parked: 0, streams: 0, unsent: 0, state: "Attached" })
    }
  }
  describe() {
    return JSON.stringify({
      ...this.multiplexer.counts(),
      carriers: [...this.multiplexer.carriers.values()].map((carrier) => ({
        ...waiting(carrier),
        attempt: carrier.attempt,
        unacknowledged: carrier.buffer.unacknowledged()
      })),
      streams: [...this.multiplexer.table.byId.values()].map(
        ({ credit, id, into, isParked, out, pending, readable }) => ({
          id,
          into,
          out,
          credit,
          isParked,
          readable,
          pending: pending.size
        })
      )
    })
  }
}

const waiting = (carrier: Carrier<VisitorStream>) => ({
  parked: carrier.parkedStreams(),
  streams: carrier.streams,
  unsent: carrier.buffer.unsent(),
  state: carrier.state
})

class PoolLink {
  private readonly link: Link
  readonly near: PoolEnd
  readonly far: PoolEnd
  isTaken = false
  isCut = false

  constructor(link: Link) {
    this.link = link
    this.near = new PoolEnd(link.near)
    this.far = new PoolEnd(link.far)
  }
  cut() {
    this.isCut = true
    this.link.cut(1, 10)
  }
}

class PoolEnd implements Pooled {
  readonly end: End
  constructor(end: End) {
    this.end = end
  }
  reset() {
    this.end.reset()
  }
}

/** A visitor, the stream, and its target. */
class Visit {
  private readonly world: World
  private readonly plan: StreamPlan
  private readonly number: number
  private readonly visitor: Peer
  private target: Peer | undefined
  private near: VisitorStream | undefined
  private far: VisitorStream | undefined
  private readonly results: { near?: Result; far?: Result } = {}
  private readonly moved: { near?: Pooled; far?: Pooled } = {}
  private isRefused = false
  private isResetByOther = false

  constructor(world: World, plan: StreamPlan, number: number) {
    const { clock, scenario } = world
    const most = Math.min(300 * scenario.local.bufferBytes, 50 * scenario.path.bufferBytes)
    this.world = world
    this.number = number
    this.plan = {
      ...plan,
      visitor: { ...plan.visitor, bytes: Math.min(most, plan.visitor.bytes) },
      target: { ...plan.target, bytes: Math.min(most, plan.target.bytes) }
    }
    const link = new Link(clock, scenario.local)
    this.visitor = new Peer(`visitor ${number}`, clock, link.far, this.plan.visitor, 2 * number, 2 * number + 1)
    clock.at(plan.atMillis, () => {
      this.visitor.start()
      this.open(link.near)
    })
    if (plan.reset !== undefined) {
      const { atMillis, by } = plan.reset
      clock.at(Math.max(plan.atMillis + 1, atMillis), () => {
        if (by === "Visitor") this.visitor.reset()
        else if (by === "Target") this.target?.reset()
        else if (by === "VisitorSide" && this.near !== undefined) world.visitors.multiplexer.reset(this.near)
        else if (by === "TargetSide" && this.far !== undefined) world.targets.multiplexer.reset(this.far)
      })
    }
  }
  private open(connection: End) {
    const { clock, visitors } = this.world
    this.near = visitors.multiplexer.open(connection, Uint8Array.of(this.number), this.listener("near"))
    // There is no carrier yet, where the other side dials them.
    if (this.near !== undefined) return
    if (this.visitor.isOver()) connection.reset()
    else clock.after(5, () => this.open(connection))
  }
  private listener(side: "near" | "far"): Listener {
    return {
      ended: (result) => {
        if (this.results[side] !== undefined || this.moved[side] !== undefined) throw new Error("ended twice")
        this.results[side] = result
        if (this.plan.resetsNext) this.world.visits[this.number]?.resetBy(side)
      },
      moved: (connection, pooled, unwritten) => {
        if (this.results[side] !== undefined || this.moved[side] !== undefined) throw new Error("ended and moved")
        this.moved[side] = pooled
        if (!(pooled instanceof PoolEnd)) throw new Error("another connection than was taken")
        splice(connection, pooled.end, unwritten)
      }
    }
  }
  opened(stream: VisitorStream) {
    const { clock, scenario, targets } = this.world
    if (this.far !== undefined) throw new Error("opened twice")
    this.far = stream
    stream.listener = this.listener("far")
    if (this.plan.dialMillis === undefined) {
      this.isRefused = true
      clock.after(1, () => targets.multiplexer.reset(stream, StreamFrame.resets.target))
      return
    }
    const connect = () => {
      const link = new Link(clock, scenario.local)
      const { number, plan } = this
      this.target = new Peer(`target ${number}`, clock, link.far, plan.target, 2 * number + 1, 2 * number)
      this.target.start()
      targets.multiplexer.connect(stream, link.near)
    }
    if (this.plan.dialMillis === 0) connect()
    else clock.after(this.plan.dialMillis, connect)
  }

  resetBy(side: "near" | "far") {
    this.isResetByOther = true
    const { targets, visitors } = this.world
    if (side === "near" && this.near !== undefined) visitors.multiplexer.reset(this.near)
    if (side === "far" && this.far !== undefined) targets.multiplexer.reset(this.far)
  }

  /** How long the visitor was served. */
  millis(): number {
    return (this.visitor.doneAt ?? Infinity) - this.plan.atMillis
  }
  isOver() {
    if (this.near === undefined && this.visitor.isOver()) return true
    return (
      this.visitor.isOver() &&
      (this.target === undefined ? this.results.far !== undefined || this.isLost() : this.target.isOver())
    )
  }
  /** It was reset before the other side knew of it. */
  private isLost() {
    return this.far === undefined && this.results.near !== undefined
  }
  /** Whether nobody can expect that it ends by itself. */
  mayHang() {
    if (this.world.clock.now < hangMillis) return false
    const { target, visitor } = this.plan
    return (
      visitor.reads === "Never" ||
      target.reads === "Never" ||
      (visitor.ends === "AfterTheirEnd" && target.ends === "AfterTheirEnd")
    )
  }
  giveUp() {
    this.visitor.reset()
    this.target?.reset()
  }
  check() {
    const { target, visitor } = this
    if (target === undefined) return assert.isTrue(visitor.sawReset || visitor.hasReset, "an end where nobody was")
    // An end is the end of all, and a reset no end.
    if (visitor.sawEnd) assert.strictEqual(visitor.received, target.sent)
    if (target.sawEnd) assert.strictEqual(target.received, visitor.sent)
    if (visitor.sawEnd) assert.isTrue(target.hasEnded, "the visitor saw an end that the target did not send")
    if (target.sawEnd) assert.isTrue(visitor.hasEnded, "the target saw an end that the visitor did not send")
    const hadCarrier = [this.near, this.far].every((stream) => !this.world.ended.has(stream?.carrier.number ?? 0))
    const isDisturbed =
      this.plan.reset !== undefined ||
      this.isRefused ||
      this.isResetByOther ||
      !hadCarrier ||
      this.mayHang() ||
      this.wasCut()
    if (!isDisturbed) {
      assert.isTrue(visitor.sawEnd && target.sawEnd, `undisturbed, but reset: ${this.describe()}`)
      if (this.moved.near === undefined)
        assert.deepStrictEqual(this.results, { near: { _tag: "Done" }, far: { _tag: "Done" } })
    }
  }
  private wasCut() {
    return this.moved.near !== undefined && this.world.scenario.faults.some(({ kind }) => kind === "CutPooled")
  }
  describe() {
    const { number, plan, results, target, visitor } = this
    const peers = [visitor, target].map((peer) =>
      peer === undefined
        ? undefined
        : {
            sent: peer.sent,
            received: peer.received,
            sawEnd: peer.sawEnd,
            hasEnded: peer.hasEnded,
            over: peer.isOver()
          }
    )
    const moved = { near: this.moved.near !== undefined, far: this.moved.far !== undefined }
    return JSON.stringify({ number, plan, results, moved, peers })
  }
}
