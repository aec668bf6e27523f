/**
 * Worlds of streams as values, so that a failing one shrinks.
 */
import * as FastCheck from "effect/FastCheck"
import type { Path } from "./Link.js"
import type { Plan } from "./Peer.js"

export interface StreamPlan {
  /** When the visitor comes. */
  readonly atMillis: number
  /** How long the target takes to be connected, which may be at once; `undefined`: it is refused. */
  readonly dialMillis: number | undefined
  readonly visitor: Plan
  readonly target: Plan
  /** Whether a side, once told that it has ended, resets the next one at once. */
  readonly resetsNext: boolean
  readonly reset:
    | { readonly by: "Visitor" | "Target" | "VisitorSide" | "TargetSide"; readonly atMillis: number }
    | undefined
}

/** What happens to a carrier. Numbers of carriers count modulo how many there are. */
export interface Fault {
  readonly kind: "Cut" | "Freeze" | "Pause" | "Attach" | "CutPooled" | "EndByVisitors" | "EndByTargets"
  readonly carrier: number
  readonly atMillis: number
}

export interface Scenario {
  readonly seed: number
  readonly path: Path
  /** Of the connections of visitors and targets. */
  readonly local: Path
  readonly carriers: number
  /** Which side dials the carriers' connections. */
  readonly dialler: "Visitors" | "Targets"
  /** How long a new connection of a carrier takes, at most, until each side has it. */
  readonly attachMillis: number
  /** Whether the other side tells the dialler that it has lost a connection, by another way. */
  readonly tells: boolean
  /** How many bytes the carriers have passed before. */
  readonly passedBytes: number
  readonly streams: ReadonlyArray<StreamPlan>
  readonly faults: ReadonlyArray<Fault>
  /** How many pool connections there are to move streams to, and after how many bytes. */
  readonly pooled: number
  readonly moveAfterBytes: number
}

const nat = (max: number) => FastCheck.integer({ min: 0, max })

const path = ({ buffers, leastBuffer }: Size): FastCheck.Arbitrary<Path> =>
  FastCheck.record({
    latencyMillis: nat(30),
    bufferBytes: FastCheck.oneof(
      FastCheck.constantFrom(...buffers),
      FastCheck.integer({ min: leastBuffer, max: Math.max(leastBuffer, 20_000) })
    ),
    shortness: FastCheck.constantFrom(0, 0, 0.2, 0.7),
    refusals: FastCheck.constantFrom(0, 0, 0.1, 0.3),
    tells: FastCheck.boolean()
  })

const bytes = ({ bytes, few }: Size) =>
  FastCheck.oneof(
    { weight: few, arbitrary: FastCheck.constantFrom(0, 1) },
    { weight: few, arbitrary: nat(3000) },
    { weight: 2, arbitrary: nat(bytes) }
  )

const plan = ({ pauses, ...size }: Size): FastCheck.Arbitrary<Plan> =>
  FastCheck.record({
    bytes: bytes({ pauses, ...size }),
    chunkBytes: FastCheck.constantFrom(65_536, 4096, 100, 7000),
    pauseMillis: FastCheck.constantFrom(...pauses),
    reads: FastCheck.constantFrom("Fast", "Fast", "Fast", "Slowly", "Never"),
    ends: FastCheck.constantFrom("Sent", "Sent", "AfterTheirEnd")
  })

const stream = (size: Size): FastCheck.Arbitrary<StreamPlan> =>
  FastCheck.record({
    atMillis: nat(300),
    dialMillis: FastCheck.option(FastCheck.oneof(FastCheck.constant(0), nat(80)), { freq: 20, nil: undefined }),
    visitor: plan(size),
    target: plan(size),
    resetsNext: FastCheck.constantFrom(false, false, false, false, false, false, false, true),
    reset: FastCheck.option(
      FastCheck.record({
        by: FastCheck.constantFrom("Visitor", "Target", "VisitorSide", "TargetSide"),
        atMillis: nat(600)
      }),
      { freq: 3, nil: undefined }
    )
  })

const fault: FastCheck.Arbitrary<Fault> = FastCheck.record({
  kind: FastCheck.constantFrom(
    ...(["Cut", "Cut", "Freeze", "Pause", "Attach", "CutPooled"] as const),
    ...(["Cut", "Cut", "Freeze", "Pause", "EndByVisitors", "EndByTargets"] as const)
  ),
  carrier: nat(3),
  atMillis: nat(700)
})

/** How large a world may be. */
export interface Size {
  readonly streams: number
  readonly faults: number
  /** The most bytes of a stream, each way; and how often it has few. */
  readonly bytes: number
  readonly few: number
  /** Of connections: the usual ones, and the smallest. */
  readonly buffers: ReadonlyArray<number>
  readonly leastBuffer: number
  /** How long peers wait between two chunks, and after how many bytes streams are moved. */
  readonly pauses: ReadonlyArray<number>
  readonly moves: ReadonlyArray<number>
}

/** Many streams of few bytes, over connections that take and give them one by one. */
export const small: Size = {
  streams: 6,
  faults: 6,
  bytes: 60_000,
  few: 3,
  buffers: [65_536],
  leastBuffer: 1,
  pauses: [0, 0, 1, 10],
  moves: [262_144, 1, 300, 3000, 20_000]
}
/** Streams that are moved while both sides send. */
export const moving: Size = { ...small, few: 1, leastBuffer: 100, pauses: [1, 10], moves: [1, 300, 3000, 20_000] }
/** Streams that fill windows, segments and what a carrier keeps. */
export const large: Size = {
  streams: 4,
  faults: 10,
  bytes: 1_500_000,
  few: 1,
  buffers: [65_536, 300_000, 2_000_000],
  leastBuffer: 20_000,
  pauses: [0, 0, 1],
  moves: [262_144, 20_000, 1_000_000, 1]
}

export const scenario = (size: Size): FastCheck.Arbitrary<Scenario> =>
  FastCheck.record({
    seed: FastCheck.nat(),
    path: path({ ...size, leastBuffer: Math.max(size.leastBuffer, 100) }),
    local: path(size),
    carriers: FastCheck.integer({ min: 1, max: 3 }),
    dialler: FastCheck.constantFrom("Visitors", "Targets"),
    attachMillis: nat(200),
    tells: FastCheck.boolean(),
    passedBytes: FastCheck.constantFrom(0, 0, 0, 2 ** 48 - 1000),
    streams: FastCheck.array(stream(size), { maxLength: size.streams, size: "max" }),
    faults: FastCheck.array(fault, { maxLength: size.faults, size: "max" }),
    pooled: nat(6),
    moveAfterBytes: FastCheck.constantFrom(...size.moves)
  })
