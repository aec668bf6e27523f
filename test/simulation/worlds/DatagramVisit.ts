/**
 * A visitor who sends datagrams through the tunnel and hears an answer to each, and the target that answers.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import type * as Address from "../../../src/core/Address.js"
import * as Transport from "../../../src/transport/Transport.js"

export interface DatagramVisit {
  readonly id: number
  readonly arrivesMillis: number
  /** Bytes in each datagram, its two first left out. */
  readonly sizes: ReadonlyArray<number>
  /** Between two datagrams. */
  readonly gapMillis: number
}

export const draw = (id: number): Effect.Effect<DatagramVisit> =>
  Effect.gen(function* () {
    const count = yield* Random.nextIntBetween(1, 13)
    return {
      id,
      arrivesMillis: yield* Random.nextIntBetween(0, 20_000),
      sizes: yield* Effect.replicateEffect(Random.nextIntBetween(0, 3000), count),
      gapMillis: yield* Effect.map(Random.nextIntBetween(0, 3), (index) => [0, 10, 700][index] ?? 0)
    }
  })

/** How long after its last question a visitor goes on listening. */
const patience = Duration.seconds(30)

export const visit = (to: Address.Address, { arrivesMillis, gapMillis, id, sizes }: DatagramVisit) =>
  Effect.gen(function* () {
    yield* Effect.sleep(arrivesMillis)
    const socket = yield* (yield* Transport.Transport).associate(to)
    const broken: Array<string> = []
    const answered = new Set<number>()
    const listen = Effect.gen(function* () {
      while (answered.size < sizes.length) {
        for (const { bytes } of yield* Effect.orElseSucceed(socket.receive, () => [])) {
          const number = bytes.at(-2) ?? -1
          if (answered.has(number)) broken.push(`datagram ${number} of visitor ${id} was answered twice`)
          if (!equal(bytes, answerTo(question(id, number, sizes[number] ?? 0)))) {
            broken.push(`datagram ${number} of visitor ${id} got a wrong answer`)
          }
          answered.add(number)
        }
      }
    })
    const listening = yield* Effect.fork(listen)
    for (const [number, size] of sizes.entries()) {
      yield* socket.send([{ peer: to, bytes: question(id, number, size) }])
      yield* Effect.sleep(gapMillis)
    }
    yield* Effect.timeoutOption(Fiber.join(listening), patience)
    // Each that was answered was answered right, or `broken` says so.
    return { sent: sizes.length, answered: answered.size, broken }
  }).pipe(Effect.scoped, Effect.orDie)

/** Answers each datagram, and counts how often each came. */
export const serve = (at: Address.Address, arrivals: Map<string, number>) =>
  Effect.gen(function* () {
    const socket = yield* (yield* Transport.Transport).bind(at)
    while (true) {
      const questions = yield* socket.receive
      for (const { bytes } of questions) {
        const name = `${bytes[0]}/${bytes[1]}`
        arrivals.set(name, (arrivals.get(name) ?? 0) + 1)
      }
      yield* socket.send(questions.map(({ bytes, peer }) => ({ peer, bytes: answerTo(bytes) })))
    }
  }).pipe(Effect.scoped)

// internal

const question = (id: number, number: number, size: number): Uint8Array =>
  Uint8Array.from(
    { length: size + 2 },
    (_, at) => (at === 0 ? id : at === 1 ? number : id * 31 + at * 7 + number) & 0xff
  )

const answerTo = (question: Uint8Array): Uint8Array => question.toReversed()

const equal = (left: Uint8Array, right: Uint8Array) =>
  left.length === right.length && left.every((byte, at) => byte === right[at])
